"""What a bake has made of each parameter, and how much of the update the cast has left."""

from __future__ import annotations

import math
from importlib import metadata
from typing import TYPE_CHECKING, Any

import attrs

from adapterkit.artifact.layout import BAKED as REPORT
from adapterkit.compose import Blend

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from torch import Tensor

    from adapterkit.artifact.manifest import BaseReference
    from adapterkit.compose import Acting

__all__ = ["REPORT", "Baked", "BakedLayer", "Measure", "parts_of"]

SCHEMA = 1


@attrs.frozen(kw_only=True)
class BakedLayer:
    """A parameter that was changed. Norms are Frobenius norms; W is the base's own, ΔW the update, both as they are in float32.

    Attributes:
        name: What the model calls it.
        update: ``|ΔW| / |W|``.
        survived: How far the cast weight has moved from the cast base in the direction of ΔW, in units of ΔW: 1 is all of it, 0
            says that it was rounded away.
        error: ``|cast(W + ΔW) - (W + ΔW)| / |ΔW|``: the rounding beside the update. It is the same for every weight of the base,
            adapter or not, and averages out where the loss of an update does not.
    """

    name: str
    update: float
    survived: float
    error: float


@attrs.frozen(kw_only=True)
class Baked:
    """A model that was written; it is a path like any other: ``Base(baked)``, ``open(baked / "config.json")``.

    Attributes:
        folder: Where it is.
        layers: The parameters that were changed.
        survived: How much of the whole update survived the cast, as of one layer.
        dtype: What the changed weights are stored in.
        base: What they were added to.
        parts: Method, digest and weight of each adapter.
        whole: Why the base had to be in memory as a whole; empty where it was streamed.
    """

    folder: Path
    layers: tuple[BakedLayer, ...] = attrs.field(repr=False)
    survived: float
    dtype: str
    base: BaseReference = attrs.field(repr=False)
    parts: tuple[dict[str, Any], ...] = attrs.field(repr=False)
    whole: str = ""

    def __fspath__(self) -> str:
        return str(self.folder)

    def __str__(self) -> str:
        return str(self.folder)

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    def to_json(self) -> dict[str, Any]:
        """What ``adapterkit-bake.json`` holds: all but where it is."""
        return {
            "schema": SCHEMA,
            "base": attrs.asdict(self.base),
            "adapters": list(self.parts),
            "dtype": self.dtype,
            "survived": _rounded(self.survived),
            "streamed": not self.whole,
            **({"whole": self.whole} if self.whole else {}),
            "layers": [
                {key: _rounded(one) if isinstance(one, float) else one for key, one in attrs.asdict(layer).items()}
                for layer in self.layers
            ],
            "adapterkit": metadata.version("adapterkit"),
        }


def parts_of(acting: Acting) -> tuple[dict[str, Any], ...]:
    """Method, digest and weight of each adapter."""
    parts = acting.parts if isinstance(acting, Blend) else ((acting, 1.0),)
    return tuple({"method": one.method, "digest": one.digest, "weight": weight} for one, weight in parts)


@attrs.define
class Measure:
    """Sums of squares over a parameter, or over all of them, block by block."""

    own: float = 0.0
    update: float = 0.0
    moved: float = 0.0
    error: float = 0.0

    def add(self, own: Tensor, before: Tensor, update: Tensor, after: Tensor) -> None:
        """Take a block in: the base's own numbers, the same as they would be cast, what is added, and the cast sum."""
        moved, error = after - before, after - own - update
        for name, one, other in (
            ("own", own, own),
            ("update", update, update),
            ("moved", moved, update),
            ("error", error, error),
        ):
            setattr(self, name, getattr(self, name) + float((one.reshape(-1) @ other.reshape(-1)).double()))

    @classmethod
    def of(cls, several: Iterable[Measure]) -> Measure:
        """Of all of them together."""
        rows = [attrs.astuple(one) for one in several]
        return cls(*(math.fsum(column) for column in zip(*rows, strict=True))) if rows else cls()

    @property
    def survived(self) -> float:
        """See :class:`BakedLayer`; of an update that is nothing, all survives."""
        return min(1.0, max(0.0, self.moved / self.update)) if self.update else 1.0

    def layer(self, name: str) -> BakedLayer:
        """The same as a record."""
        update = math.sqrt(self.update / self.own) if self.own else math.inf if self.update else 0.0
        error = math.sqrt(self.error / self.update) if self.update else 0.0
        return BakedLayer(name=name, update=update, survived=self.survived, error=error)


def _rounded(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None
