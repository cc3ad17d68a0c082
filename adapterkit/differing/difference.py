"""The difference of two adapters, as a value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Changed", "Difference", "Layer"]


@attrs.frozen
class Changed:
    """One thing that the two say otherwise; None where one of them says nothing of it."""

    name: str
    first: Any
    second: Any


@attrs.frozen(kw_only=True)
class Layer:
    """A site of the base where both act and do not do the same. Norms are Frobenius norms.

    Attributes:
        name: The site.
        first: The norm of what is compared of the first adapter.
        second: The same of the second.
        distance: The norm of their difference.
        relative: ``distance / first``; None where the first is zero.
        cosine: Of the angle between them, from -1 to 1; None where one of them is zero.
        of: What is compared: ``"effect"``, what the adapters add to the weights; or ``"tensors"``, what they hold, where the first
            cannot be said without the base.
        tensors: ``|a - b| / |a|`` of the tensors that they hold; None where these do not match. Two adapters may do the same with
            other tensors.
    """

    name: str
    first: float
    second: float
    distance: float
    relative: float | None
    cosine: float | None
    of: str
    tensors: float | None


@attrs.frozen(kw_only=True)
class Difference:
    """What differs between two adapters.

    Attributes:
        first: The digest of the first.
        second: The digest of the second.
        config: Options of the method, and the method.
        base: The base.
        data: What they were trained on.
        training: How.
        lineage: What they were made of.
        scores: By data set and score; the base's own are left out.
        versions: The plugin and the libraries that they were made with.
        layers: Where both act and differ, the largest distance first.
        same: How many sites are the same, number by number, or in what they do.
        only_first: Sites where the first acts alone.
        only_second: Sites where the second acts alone.
        unlike: Sites whose shapes do not match, as those of different bases.
        overall: The same as a layer, of all sites at which the two could be compared; None where there are none.
    """

    first: str
    second: str
    config: tuple[Changed, ...] = ()
    base: tuple[Changed, ...] = ()
    data: tuple[Changed, ...] = ()
    training: tuple[Changed, ...] = ()
    lineage: tuple[Changed, ...] = ()
    scores: tuple[Changed, ...] = ()
    versions: tuple[Changed, ...] = ()
    layers: tuple[Layer, ...] = attrs.field(default=(), repr=False)
    same: int = 0
    only_first: tuple[str, ...] = attrs.field(default=(), repr=False)
    only_second: tuple[str, ...] = attrs.field(default=(), repr=False)
    unlike: tuple[str, ...] = attrs.field(default=(), repr=False)
    overall: Layer | None = None

    @property
    def is_same(self) -> bool:
        """Whether they are the same adapter; what is said beside, such as scores, may differ all the same."""
        return self.first == self.second

    @property
    def parts(self) -> Mapping[str, tuple[Changed, ...]]:
        """What they say otherwise, by part; parts in which nothing differs are left out."""
        names = ("config", "base", "data", "training", "lineage", "scores", "versions")
        return {name: getattr(self, name) for name in names if getattr(self, name)}

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return {**attrs.asdict(self), "is_same": self.is_same}
