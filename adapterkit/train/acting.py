"""What acts at the sites in a pass that several adapters in training share."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import attrs
import torch

from adapterkit.errors import PluginError
from adapterkit.runtime import InputAction, RowPlan
from adapterkit.runtime.actions import LayerAction
from adapterkit.runtime.rows import Rows
from adapterkit.runtime.tokens import virtual_count
from adapterkit.sites import INPUT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from adapterkit.runtime import Action, Plan

    from .layout import Layout
    from .randomness import RandomState

__all__ = ["Actor", "Share", "joint_plan"]


@attrs.frozen(eq=False)
class Actor:
    """A plan, and the random numbers that it draws."""

    plan: Plan
    random: RandomState


@attrs.frozen(eq=False)
class Share:
    """One layer's part in a batch that layers of its class share, as their static method ``together`` is given it.

    Attributes:
        layer: The layer.
        start: Where its sequences begin in ``x.flatten(0, -2)``, and ``stop`` where they end.
        count: How many sequences.
        width: How many tokens of each are its own; what follows them fills it up, and nothing comes of it.
        drawn: Makes a context in which torch draws this layer's own random numbers.
        memo: What layers make of where whose tokens are, for all sites of the pass; keys begin with a name of the plugin's.
    """

    layer: Any
    start: int
    stop: int
    count: int
    width: int
    drawn: Callable[[], contextlib.AbstractContextManager[None]]
    memo: dict[Any, Any]


def joint_plan(actors: Sequence[Actor], layout: Layout, head: str) -> RowPlan:
    """What the sites are to do for all rows, but for the head: it works for each job by itself."""
    rows = Rows(layout.count)
    sites = {site: None for actor in actors for site in actor.plan if site not in (INPUT, head)}  # in order, each once
    spans = layout.spans()
    memo: dict[Any, Any] = {}
    actions: dict[str, Action] = {site: _AtSite.of(site, actors, spans, layout, rows, memo) for site in sites}
    own, first = [], 0
    for actor, (count, _) in zip(actors, layout.sizes, strict=True):
        number = virtual_count(actor.plan)
        own += [range(first, first + number)] * count
        first += number
    tables = [actor.plan[INPUT].table for actor in actors if virtual_count(actor.plan)]  # type: ignore[attr-defined]
    if tables:
        table = InputAction(lambda: torch.cat([one() for one in tables]), rows=tuple((0, numbers) for numbers in own))
        actions[INPUT] = table
    return _JointPlan(actions, rows, own[: layout.count], [actor.random for actor in actors])


class _JointPlan(RowPlan):
    """The plan of several trainings, each of which draws its own random numbers, and draws them again for recomputation."""

    def __init__(
        self, actions: dict[str, Action], rows: Rows, virtual: Sequence[range], randoms: Sequence[RandomState]
    ) -> None:
        super().__init__(actions, rows, virtual, [0] * rows.count)
        self._randoms = randoms

    def contexts(self) -> tuple[Any, Any]:
        stood: list[Sequence[Tensor]] = []

        @contextlib.contextmanager
        def first() -> Iterator[None]:
            stood.extend(random.states for random in self._randoms)
            yield

        @contextlib.contextmanager
        def again() -> Iterator[None]:
            with contextlib.ExitStack() as stack:
                for random, states in zip(self._randoms, stood, strict=True):
                    stack.enter_context(random.again(states))
                yield

        return first(), again()


@attrs.frozen(eq=False)
class _AtSite:
    """Every adapter's action on its own rows; the rows of one that does nothing here are the base's.

    Attributes:
        site: Where.
        actions: What each adapter does here, or None.
        actors: Whose they are.
        shares: Their layers' shares, where these are of one class that can act together; else empty.
        layout: Which rows are whose.
        rows: How the forward pass under way lays them out.
    """

    site: str
    actions: tuple[Action | None, ...]
    actors: tuple[Actor, ...]
    shares: tuple[Share, ...]
    layout: Layout
    rows: Rows

    @classmethod
    def of(
        cls,
        site: str,
        actors: Sequence[Actor],
        spans: Sequence[tuple[int, int]],
        layout: Layout,
        rows: Rows,
        memo: dict[Any, Any],
    ) -> _AtSite:
        """What several adapters do at one site."""
        actions = tuple(actor.plan.get(site) for actor in actors)
        here = [one for one in zip(actions, spans, layout.sizes, actors, strict=True) if one[0] is not None]
        layers = [one[0].layer for one in here if isinstance(one[0], LayerAction)]
        shares: tuple[Share, ...] = ()
        if len(layers) == len(here) and len({type(layer) for layer in layers}) == 1 and hasattr(layers[0], "together"):
            shares = tuple(
                Share(layer, *span, *size, actor.random.drawn, memo)
                for layer, (_, span, size, actor) in zip(layers, here, strict=True)
            )
        return cls(site, actions, tuple(actors), shares, layout, rows)

    def __call__(self, x: Any, y: Any) -> Any:
        """Each row with its own action, and in its own width."""
        if self.shares:
            together = self._together(x, y)
            if together is not None:
                return together
        x, y = self.rows.spread(x), self.rows.spread(y)
        given, block = self.rows.block(x), self.rows.block(y)
        parts = []
        for action, actor, mine, out in zip(
            self.actions, self.actors, self.layout.split(x, given), self.layout.split(y, block), strict=True
        ):
            if action is None:
                parts.append(out)
                continue
            with actor.random.drawn():
                parts.append(action(mine, out))
        return self.layout.whole(parts, y, block)

    def _together(self, x: Tensor, y: Tensor) -> Tensor | None:
        """What layers of one class make of the whole batch; None where they cannot, and each is asked for its own rows."""
        if x.shape[:-1] != y.shape[:-1] or len(x.flatten(0, -2)) != self.layout.count * self.layout.width:
            return None
        version = x._version  # noqa: SLF001 - how often it was written to; torch has no public name for it
        out: Tensor | None = self.shares[0].layer.together(self.shares, x, y)
        kind = type(self.shares[0].layer).__name__
        if out is not None and out.shape != y.shape:
            raise PluginError(
                f"{kind}.together returned {tuple(out.shape)} at {self.site!r} for an output of {tuple(y.shape)}"
            )
        if x._version != version:  # noqa: SLF001
            raise PluginError(f"{kind}.together changed its input at {self.site!r} in place")
        return None if out is None else out.to(y.dtype)
