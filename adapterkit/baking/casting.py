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
        after = cast(own + update, dtype, f"{site.name}.{name}", of=own)
        measure.add(own, own.to(dtype).to(own.dtype), update, after.to(own.dtype))
        yield after


def cast(values: Tensor, dtype: torch.dtype, name: str, *, of: Tensor | None = None) -> Tensor:
    """``values`` in another type.

    Args:
        values: What is to be cast.
        dtype: The type.
        name: What to call them in an error.
        of: What the base has in their place; ``values`` by default.

    Raises:
        ArtifactError: The base's numbers are finite, and these are not all.
    """
    made = values.to(dtype)
    # the least and the greatest are looked at first: they are not finite where any is not
    if made.numel() and not torch.isfinite(torch.stack(torch.aminmax(made))).all():
        before = values if of is None else of
        if torch.isfinite(before).all():
            raise ArtifactError(
                f"{name!r} would hold what is no number in {dtype_name(dtype)}: the sums are too large for it, or the adapter is "
                "broken"
            )
    return made


def dtype_name(dtype: torch.dtype) -> str:
    """Such as ``"bfloat16"``."""
    return str(dtype).removeprefix("torch.")
