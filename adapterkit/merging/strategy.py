"""A merge strategy that is ready to be asked: its function, its options, and what it is given for each weight."""

from __future__ import annotations

import functools
import hashlib
import inspect
import math
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import attrs
import torch
from torch import Tensor

from adapterkit.config import build_config, to_dict
from adapterkit.effects import LowRank
from adapterkit.errors import ConfigError, PluginError

if TYPE_CHECKING:
    from adapterkit.contracts import MergeStrategy

__all__ = ["Strategy", "options_of", "prepare"]

FILLED = ("rank", "generator", "base")
"""What a strategy's function is given beside its options, where it has a parameter of that name."""
TAKEN = ("adapters", "strategy", "seed", "registry", "space")
"""The words of ``merge`` itself: an option of that name would never reach its strategy."""
_WORDS = {
    "Any": Any,
    "Callable": Callable,
    "Generator": torch.Generator,
    "Literal": Literal,
    "LowRank": LowRank,
    "Mapping": Mapping,
    "Sequence": Sequence,
    "Tensor": Tensor,
    "torch": torch,
}
"""What annotations mean that were imported for readers only."""


@attrs.frozen(eq=False)
class Strategy:
    """A strategy with its options decided.

    Attributes:
        name: What the user called it.
        takes_updates: Whether its function is given factors, and not whole changes.
        exact: Whether it makes the weighted sum.
        options: Every option, defaults included, as JSON values.
        function: The plugin's, with its options filled in.
        filled: Which of ``rank``, ``generator`` and ``base`` it has.
        needs_base: Whether it can do nothing without the base's weight.
        weights: One for each parent.
        sums: What each parent's change is multiplied by, where ``exact``; else the weights.
        rank: What the caller asked for.
        seed: What random numbers are drawn from, together with the weight's name.
        in_factors: Whether it is asked for A and B apart, as PEFT does.
    """

    name: str
    takes_updates: bool
    exact: bool
    options: Mapping[str, Any]
    function: Callable[..., Any]
    filled: frozenset[str]
    needs_base: bool
    weights: Sequence[float]
    rank: int | None
    seed: int
    in_factors: bool

    @functools.cached_property
    def sums(self) -> Sequence[float]:
        """What each change is multiplied by: what the function makes of changes that are one at a place of their own each."""
        if not self.exact:
            return self.weights
        ones = list(torch.eye(len(self.weights))[:, None])
        if self.takes_updates:
            found = self.of_updates("unit changes", [LowRank(one, torch.ones(1, 1), 1.0) for one in ones], None).delta()
        else:
            found = self.of_deltas("unit changes", ones, None)
        # found in float32: a weight that is just that is taken as it was given
        pairs = zip(found[0].tolist(), self.weights, strict=True)
        return tuple(given if math.isclose(one, given, rel_tol=1e-6) else one for one, given in pairs)

    def of_deltas(
        self, place: str, deltas: Sequence[Tensor], base: Tensor | None, weights: Sequence[float] | None = None
    ) -> Tensor:
        """The merged change of one parameter, of the shape of each of ``deltas``."""
        merged = self._ask(place, deltas, self.weights if weights is None else weights, base)
        if not isinstance(merged, Tensor) or merged.shape != deltas[0].shape:
            raise PluginError(
                f"merge strategy {self.name!r} returned {_said(merged)} at {place!r} for changes {tuple(deltas[0].shape)}"
            )
        return merged

    def of_updates(self, place: str, updates: Sequence[LowRank], base: Tensor | None) -> LowRank:
        """The merged update of one weight."""
        merged = self._ask(place, updates, self.weights, base)
        shape = (updates[0].up.shape[0], updates[0].down.shape[1])
        if not isinstance(merged, LowRank) or (merged.up.shape[0], merged.down.shape[1]) != shape:
            raise PluginError(
                f"merge strategy {self.name!r} returned {_said(merged)} at {place!r} for updates of a weight {shape}"
            )
        return merged

    def _ask(self, place: str, changes: Sequence[Any], weights: Sequence[float], base: Tensor | None) -> Any:
        given = {"rank": self.rank, "generator": _generator(self.seed, place), "base": base}
        try:
            return self.function(changes, weights, **{name: given[name] for name in self.filled})
        except ConfigError:
            raise
        except ValueError as error:
            raise ConfigError(f"merge strategy {self.name!r} refuses {place!r}", [str(error)]) from error


def prepare(
    record: MergeStrategy,
    options: dict[str, Any],
    *,
    weights: Sequence[float],
    rank: int | None,
    seed: int,
    in_factors: bool,
) -> Strategy:
    """The strategy with these options.

    Raises:
        ConfigError: Options that its function does not have, or of the wrong type; all of them together.
        PluginError: The function does not say what it takes.
    """
    first, *parameters = inspect.signature(record.merge).parameters.values()
    hints = _hints(record)
    takes = (*typing.get_args(hints.get(first.name)), None)[0]
    own = _own(record)
    _check(record, takes, [one.name for one in own if one.name in TAKEN])
    config: Any = build_config(options_of(record), options, what=f"options of merge strategy {record.name!r}")
    if in_factors and takes is LowRank:
        raise ConfigError(
            f"merge strategy {record.name!r} cannot be asked so",
            ["space: 'factors' is for strategies of whole changes; this one takes both factors together"],
        )
    chosen = {one.name: getattr(config, one.name) for one in own}
    return Strategy(
        name=record.name,
        takes_updates=takes is LowRank,
        exact=record.exact,
        options=to_dict(config),
        function=lambda changes, weights, **filled: record.merge(changes, weights, **chosen, **filled),
        filled=frozenset(one.name for one in parameters) & frozenset(FILLED),
        needs_base=hints.get("base") is Tensor,
        weights=tuple(weights),
        rank=rank,
        seed=seed,
        in_factors=in_factors,
    )


def _check(record: MergeStrategy, takes: Any, taken: Sequence[str]) -> None:
    if takes not in (Tensor, LowRank):
        raise PluginError(
            f"merge strategy {record.name!r} must be a function of (deltas: Sequence[Tensor], weights: Sequence[float], …) or of "
            "(updates: Sequence[LowRank], …)"
        )
    if taken:
        raise PluginError(f"options {sorted(taken)} of merge strategy {record.name!r} are words of merge itself")


def _hints(record: MergeStrategy) -> dict[str, Any]:
    try:
        return typing.get_type_hints(record.merge, localns=_WORDS)
    except NameError as error:
        raise PluginError(f"the annotations of merge strategy {record.name!r} cannot be read: {error}") from error


def _own(record: MergeStrategy) -> list[inspect.Parameter]:
    """The parameters that are options."""
    return [one for one in list(inspect.signature(record.merge).parameters.values())[2:] if one.name not in FILLED]


def options_of(record: MergeStrategy) -> type:
    """The options of a strategy as a class, so that they are checked and shown as those of a method are.

    What each is for is what the function's docstring says below ``Args:``.
    """
    hints, about = _hints(record), _about(record)
    fields = {
        one.name: attrs.field(
            default=attrs.NOTHING if one.default is inspect.Parameter.empty else one.default,
            type=hints.get(one.name, Any),
            metadata={"help": about[one.name]} if one.name in about else {},
        )
        for one in _own(record)
    }
    return attrs.make_class("Options", fields, frozen=True, kw_only=True)


def _about(record: MergeStrategy) -> dict[str, str]:
    """What a docstring in Google's style says of each argument."""
    below = (inspect.getdoc(record.merge) or "").partition("\nArgs:\n")[2]
    found = re.findall(r"^    (\w+):((?:.*\n?)(?: {5,}.*\n?)*)", below, re.MULTILINE)
    return {name: " ".join(text.split()).replace("``", "`") for name, text in found}


def _generator(seed: int, place: str) -> torch.Generator:
    """Random numbers for one weight, the same whichever others are merged."""
    drawn = hashlib.sha256(f"{seed} {place}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(drawn[:8], "big") >> 1)


def _said(value: Any) -> str:
    return f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else f"{type(value).__name__}"
