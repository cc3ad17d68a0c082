"""The sum of a parameter and what is added to it, computed in float32 and cast once, block by block."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from adapterkit.errors import ArtifactError

from .summing import blocks, change, rowed, wide

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from adapterkit.sites import Site

    from .report import Measure
    from .updates import Parts

__all__ = ["cast", "dtype_name", "summed"]


def summed(site: Site, name: str, parts: Parts, dtype: torch.dtype, measure: Measure) -> Iterator[Tensor]:
    """The new values of a site's parameter, some rows after others, and in ``measure`` what has become of the update.

    Raises:
        ArtifactError: A sum is larger than any number of ``dtype``.
    """
    parameter = rowed(site.parameters[name])
    for rows in blocks(parameter.shape):
        own = wide(parameter[rows])
        update = change(site, name, own, rows, parts)
        after = cast(own + update, dtype, f"{site.name}.{name}")
        measure.add(own, own.to(dtype).to(own.dtype), update, after.to(own.dtype))
        yield after


def cast(values: Tensor, dtype: torch.dtype, name: str) -> Tensor:
    """``values`` in another type.

    Raises:
        ArtifactError: They are finite, and not all of them any more.
    """
    made = values.to(dtype)
    if made.numel() and not torch.isfinite(torch.stack(torch.aminmax(made))).all() and torch.isfinite(values).all():
        raise ArtifactError(
            f"{name!r} holds numbers that are too large for {dtype_name(dtype)}: bake in bfloat16 or float32"
        )
    return made


def dtype_name(dtype: torch.dtype) -> str:
    """Such as ``"bfloat16"``."""
    return str(dtype).removeprefix("torch.")
