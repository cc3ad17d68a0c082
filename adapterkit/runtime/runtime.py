"""The one stateful part: which plan is in force, and the hooks that ask it."""

from __future__ import annotations

import contextlib
import sys
import threading
import weakref
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

import torch

from adapterkit.errors import SelectionError
from adapterkit.sites import INPUT

from .actions import Inputs
from .rows import RowPlan

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import nn

    from adapterkit.sites import Site

    from .actions import Plan

__all__ = ["Runtime", "take_over"]


class _Unset:
    """Says that a thread or task has chosen nothing of its own."""


UNSET: Final = _Unset()


class _Local(threading.local):
    """The choice of a thread, for compiled code: dynamo traces a thread-local, but only one that is set in ``__init__``."""

    def __init__(self) -> None:
        self.plan: Plan | _Unset | None = UNSET


class Runtime:
    """Sites of one base, installed once, and the plan that they follow.

    Each site has one forward hook. It looks its name up in the plan in force: the one that this thread or task chose with
    :meth:`override`, else :attr:`active`. Swapping is one assignment; no module is added, replaced or walked. Why hooks, and
    why the choice is kept twice: docs/explanation/how-sites-attach.md.
    """

    def __init__(self, model: nn.Module, sites: Sequence[Site], *, owner: object) -> None:
        self.active: Plan | None = None
        self._model, self._owner = weakref.ref(model), weakref.ref(owner)
        self._chosen: ContextVar[Plan | _Unset | None] = ContextVar("adapterkit_plan", default=UNSET)
        self._local = _Local()
        self._handles = [model.register_forward_pre_hook(self._see_input, with_kwargs=True)]
        self._handles += [
            site.module.register_forward_hook(
                _SiteHook(self, site.name, whole=site.kind == "module"), with_kwargs=site.kind == "module"
            )
            for site in sites
            if site.name != INPUT
        ]
        _forget_compiled_code()

    @property
    def plan(self) -> Plan | None:
        """The plan in force here and now."""
        mine = self._local.plan if torch.compiler.is_compiling() else self._chosen.get()
        return self.active if isinstance(mine, _Unset) else mine

    @contextlib.contextmanager
    def override(self, plan: Plan | None) -> Iterator[None]:
        """Follow another plan within this block, in this thread or task only."""
        token = self._chosen.set(plan)
        self._local.plan = plan
        try:
            yield
        finally:
            self._chosen.reset(token)
            # not what it was before: that may be the choice of another task of this thread, which is over by now
            self._local.plan = self._chosen.get()

    def checkpoint_contexts(self) -> tuple[Any, Any]:
        """What :func:`torch.utils.checkpoint.checkpoint` takes as ``context_fn``.

        Activations may be computed again in a thread of autograd's own, which knows nothing of this thread's choice: the
        plan of the forward pass is kept for it.
        """
        plan = self.plan
        if isinstance(plan, RowPlan):
            first, again = plan.contexts()
            return first, self._both(plan, again)
        return contextlib.nullcontext(), self.override(plan)

    @contextlib.contextmanager
    def _both(self, plan: Plan, context: Any) -> Iterator[None]:
        with self.override(plan), context:
            yield

    def remove(self) -> None:
        """Take every hook off; the model is as it was before."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        _forget_compiled_code()

    def serves(self, model: nn.Module) -> bool:
        """Whether its owner still lives and has ``model``, not a copy of it."""
        return self._owner() is not None and self._model() is model

    def __deepcopy__(self, memo: dict[int, Any]) -> Runtime:
        # A copy of the model follows the same plan; the adapters are not copied with it.
        return self

    def _see_input(
        self, module: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Tell a plan for rows how the model's input is laid out, and give virtual tokens their embeddings."""
        plan = self.plan
        if isinstance(plan, RowPlan):
            ids = inputs[0] if inputs else options.get("input_ids")
            plan.rows.see(options["inputs_embeds"] if ids is None else ids)
        if plan is None or INPUT not in plan:
            return None
        placed: tuple[tuple[Any, ...], dict[str, Any]] = plan[INPUT].place(module, inputs, options)  # type: ignore[attr-defined]
        return placed


class _SiteHook:
    """What is registered at one site; with ``whole``, its action is given all inputs where there are several."""

    def __init__(self, runtime: Runtime, name: str, *, whole: bool) -> None:
        self._runtime, self._name, self._whole = runtime, name, whole

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], *rest: Any) -> Any:  # noqa: ARG002
        plan = self._runtime.plan
        if plan is None or self._name not in plan:
            return None
        output = rest[-1]
        return plan[self._name](self._all(inputs, rest[0]) if self._whole else inputs[0], output)

    def _all(self, inputs: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """One input, or all: what is given by name with them.

        Raises:
            SelectionError: Something among them remembers the call, as a cache does: the module cannot be run once more.
        """
        named = {name: one for name, one in options.items() if one is not None}
        if any(not _is_plain(one) for one in named.values()) or any("Cache" in type(one).__name__ for one in inputs):
            raise SelectionError(
                f"the adapter changes parameters of {self._name!r}, which keeps a state from token to token and cannot be run "
                "twice: call the model with use_cache=False, or bake the adapter"
            )
        return Inputs.of(inputs, named) if named else inputs if len(inputs) != 1 else inputs[0]


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (torch.Tensor, bool, int, float, str))


def take_over(model: nn.Module) -> bool:
    """Take off the hooks that an owner who is gone, or the model that this one is a copy of, has left on ``model``.

    Returns:
        False when the owner is still there, and nothing was taken off.
    """
    owners = [getattr(hook, "__self__", None) for hook in model._forward_pre_hooks.values()]  # noqa: SLF001
    runtimes = [owner for owner in owners if isinstance(owner, Runtime)]
    if any(runtime.serves(model) for runtime in runtimes):
        return False
    for module in model.modules() if runtimes else ():
        for hooks in (module._forward_pre_hooks, module._forward_hooks):  # noqa: SLF001
            for key in [key for key, hook in hooks.items() if _is_ours(hook)]:
                del hooks[key]
                module._forward_pre_hooks_with_kwargs.pop(key, None)  # noqa: SLF001
                module._forward_hooks_with_kwargs.pop(key, None)  # noqa: SLF001
    return True


def _is_ours(hook: Any) -> bool:
    return isinstance(hook, _SiteHook) or isinstance(getattr(hook, "__self__", None), Runtime)


def _forget_compiled_code() -> None:
    """Dynamo does not look whether hooks have come or gone: code compiled before would go on without them, or with them."""
    if "torch._dynamo" in sys.modules:
        sys.modules["torch._dynamo"].reset()
