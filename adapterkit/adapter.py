"""An adapter as a value: its method, configuration, tensors and manifest."""

from __future__ import annotations

import functools
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import attrs

from .artifact.evaluated import with_result
from .artifact.manifest import Manifest, content_digest
from .artifact.writer import write_artifact
from .config import to_dict
from .errors import SelectionError
from .registry import Registry, default_registry
from .trust import read_trusted

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

    from .artifact.copies import BaseCopy
    from .evaluation import Evaluation
    from .exporting import Exported
    from .publishing import Published

__all__ = ["Adapter"]


def _frozen_cpu(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    return MappingProxyType(
        {name: tensors[name].detach().to("cpu", copy=True).contiguous() for name in sorted(tensors)}
    )


@attrs.frozen(eq=False, slots=False, repr=False)
class Adapter:
    """An adapter, apart from any base. Two adapters with the same digest are the same adapter.

    Attributes:
        method: The name of the method that made it.
        config: The method's configuration, resolved: it says which sites the adapter acts on.
        tensors: What was trained, on the CPU, by ``"<site>.<name in the layer>"``.
        manifest: Where it comes from, and how it scored.
        copies: What its file held of the base's own weights, by what it called them: no part of the adapter, and never loaded.
    """

    method: str
    config: Any
    tensors: Mapping[str, Tensor] = attrs.field(converter=_frozen_cpu)
    manifest: Manifest = attrs.field(factory=Manifest)
    copies: Mapping[str, BaseCopy] = attrs.field(factory=dict)

    @functools.cached_property
    def digest(self) -> str:
        """The sha256 of its content: method, configuration, base fingerprint and tensors."""
        return content_digest(self.method, to_dict(self.config), self.manifest.base.fingerprint, self.tensors)

    @property
    def parameters(self) -> int:
        """How many numbers were trained."""
        return sum(tensor.numel() for tensor in self.tensors.values())

    def with_evaluation(self, result: Evaluation, name: str = "") -> Adapter:
        """The same adapter with scores in its manifest, where its card and ``publish`` find them; its digest stays.

        Args:
            result: What ``base.evaluate(…, adapter=adapter)`` gave.
            name: What the data is called, such as ``"Banking77 test"``; its file's name by default. An older result of that name
                is replaced.

        Raises:
            SelectionError: The scores are another adapter's, or the data has no name.
        """
        if result.adapter != self.digest:
            whose = f"those of {result.adapter[:12]}" if result.adapter else "the base's"
            raise SelectionError(f"these scores are not those of adapter {self.digest[:12]}, but {whose}")
        name = name or result.name
        if not name:
            raise SelectionError("the rows came from no file: say what they are, as in name='Banking77 test'")
        evaluation = with_result(self.manifest.evaluation, result.summary(name))
        return attrs.evolve(self, manifest=attrs.evolve(self.manifest, evaluation=evaluation))

    def save(self, folder: str | os.PathLike[str], *, registry: Registry | None = None) -> Path:
        """Write it as PEFT does, with a manifest and a card beside; the same adapter always gives the same bytes.

        An existing folder is replaced only if it holds an adapter, and only once the new one is complete.

        Raises:
            ArtifactError: The folder holds something else, or cannot be written.
        """
        method = (registry or default_registry()).method(self.method)
        return write_artifact(
            folder, method=method, config=self.config, tensors=self.tensors, manifest=self.manifest, digest=self.digest
        )

    def export(
        self,
        folder: str | os.PathLike[str],
        to: str = "portable",
        *,
        base: str | os.PathLike[str] | None = None,
        registry: Registry | None = None,
    ) -> Exported:
        """Write it in the form that another program reads, such as ``"vllm"``, ``"gguf"`` or ``"mlx"``.

        See :func:`adapterkit.export`, which takes a Stack or a Blend too.
        """
        from . import exporting  # it stands above: it merges stacks and blends

        return exporting.export(self, folder, to, base=base, registry=registry)

    def publish(self, to: str, **options: Any) -> Published:
        """Publish it as one new version: ``cards.publish("hf://org/cards", tag="v1")``; see :func:`adapterkit.publish`."""
        from . import publishing  # it stands above: it takes references of the store too

        return publishing.publish(self, to, **options)

    @classmethod
    def load(cls, folder: str | os.PathLike[str], *, registry: Registry | None = None) -> Adapter:
        """Read a folder that adapterkit or PEFT wrote; needs no base.

        Everything that can be checked without a base is; a base checks the rest when it takes the adapter.

        Raises:
            ArtifactError: The folder is refused, by the trust policy too.
        """
        return cls(*read_trusted(folder, registry or default_registry()))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Adapter) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"<Adapter {self.method} {self.digest[:12]}: {self.parameters:,} parameters>"
