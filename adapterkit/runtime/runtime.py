"""The one stateful part: which plan is in force, and the hooks that ask it."""

from __future__ import annotations

import contextlib
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from .actions import RowPlan

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor, nn

    from adapterkit.sites import Site

    from .actions import Plan

__all__ = ["Runtime"]


class _Unset:
    """Says that a thread has chosen nothing of its own."""


UNSET: Final = _Unset()


class Runtime:
    """Sites of one base, installed once, and the plan that they follow.

    Each site has one forward hook. It looks its name up in the plan in force: the one that this thread or task chose with
    :meth:`override`, else :attr:`active`. Swapping is one assignment; no module is added, replaced or walked.
    """

    def __init__(self, model: nn.Module, sites: Sequence[Site]) -> None:
        self.active: Plan | None = None
        self._override: ContextVar[Plan | None | _Unset] = ContextVar("adapterkit_plan", default=UNSET)
        self._handles = [model.register_forward_pre_hook(self._see_input, with_kwargs=True)]
        self._handles += [site.module.register_forward_hook(self._hook(site.name)) for site in sites]

    @property
    def plan(self) -> Plan | None:
        """The plan in force here and now."""
        mine = self._override.get()
        return self.active if isinstance(mine, _Unset) else mine

    @contextlib.contextmanager
    def override(self, plan: Plan | None) -> Iterator[None]:
        """Follow another plan within this block, in this thread or task only."""
        token = self._override.set(plan)
        try:
            yield
        finally:
            self._override.reset(token)

    def checkpoint_contexts(self) -> tuple[Any, Any]:
        """What :func:`torch.utils.checkpoint.checkpoint` takes as ``context_fn``.

        Activations may be computed again in a thread of autograd's own, which knows nothing of this thread's override: the
        plan of the forward pass is kept for it.
        """
        return contextlib.nullcontext(), self.override(self.plan)

    def remove(self) -> None:
        """Take every hook off; the model is as it was before."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _see_input(self, module: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:  # noqa: ARG002
        """Tell a plan for rows how the model's input is laid out."""
        plan = self.plan
        if isinstance(plan, RowPlan):
            ids = inputs[0] if inputs else options.get("input_ids")
            plan.rows.see(options["inputs_embeds"] if ids is None else ids)

    def _hook(self, name: str) -> Any:
        def act(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:  # noqa: ARG001
            plan = self.plan
            if plan is None or name not in plan:
                return None
            return plan[name](inputs[0], output)

        return act
