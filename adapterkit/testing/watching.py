"""Sees what a training run does to its layers, through the same hooks as any plugin."""

from __future__ import annotations

import copy
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import attrs

from adapterkit.hooks import hookimpl

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from torch import Tensor, nn

    from adapterkit.adapter import Adapter
    from adapterkit.contracts import Example

__all__ = ["Seen", "Watcher"]


@attrs.define(eq=False)
class Seen:
    """What was seen of one training run.

    Attributes:
        examples: The encoded rows.
        fresh: A copy of the layers as they were before the first step.
        trained: The layers after the last step, before the method said what is kept of them.
        kept: What the method kept.
        gradients: Each gradient of each trained parameter, by ``"<site>.<name in the layer>"``, in the order of the steps.
        adapter: What the run made.
    """

    examples: Sequence[Example] = ()
    fresh: Mapping[str, nn.Module] = attrs.field(factory=dict)
    trained: Mapping[str, nn.Module] = attrs.field(factory=dict)
    kept: Mapping[str, nn.Module] = attrs.field(factory=dict)
    gradients: dict[str, list[Tensor]] = attrs.field(factory=lambda: defaultdict(list))
    adapter: Adapter = attrs.field(default=None)

    def start(self, layers: Mapping[str, nn.Module], examples: Sequence[Example]) -> None:
        """Note where training starts, and listen for gradients."""
        self.examples, self.fresh = tuple(examples), copy.deepcopy(dict(layers))
        for layer in self.fresh.values():
            layer.eval()
        for site, layer in layers.items():
            for name, parameter in layer.named_parameters():
                if parameter.requires_grad:
                    self._listen(f"{site}.{name}", parameter)

    def _listen(self, name: str, parameter: nn.Parameter) -> None:
        mine = self.gradients[name]
        parameter.register_hook(lambda gradient: mine.append(gradient.detach().clone()))  # type: ignore[no-untyped-call]

    def end(self, trained: Mapping[str, nn.Module], kept: Mapping[str, nn.Module]) -> None:
        """Note where training has come to."""
        self.trained, self.kept = dict(trained), dict(kept)
        for layer in (*trained.values(), *kept.values()):
            layer.eval()


class Watcher:
    """A plugin that passes on what it sees while :attr:`seen` is set, and does nothing else."""

    def __init__(self) -> None:
        self.seen: Seen | None = None

    @hookimpl(wrapper=True)
    def adapterkit_initialize(
        self, layers: Mapping[str, nn.Module], examples: Sequence[Example]
    ) -> Generator[None, None, None]:
        """Look at fresh layers."""
        yield
        if self.seen is not None:
            self.seen.start(layers, examples)

    @hookimpl(wrapper=True)
    def adapterkit_finish(self, layers: Mapping[str, nn.Module]) -> Generator[None, tuple[Any, Any], tuple[Any, Any]]:
        """Look at trained layers."""
        trained = copy.deepcopy(dict(layers)) if self.seen is not None else {}  # finish may change them in place
        config, kept = yield
        if self.seen is not None:
            self.seen.end(trained, kept)
        return config, kept
