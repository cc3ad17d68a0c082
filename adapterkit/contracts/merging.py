"""How several updates of one weight become one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MergeStrategy"]


@attrs.frozen(eq=False, kw_only=True)
class MergeStrategy:
    """A way to make one update of several.

    ``merge`` is a typed function; the annotation of its first parameter says what it is given for each site:

    * ``deltas: Sequence[Tensor]``: each adapter's whole change of the weight, ``(out_features, in_features)`` in float32, not
      yet multiplied by its weight; it returns the merged change, of the same shape;
    * ``updates: Sequence[LowRank]``: each adapter's change as factors; it returns a ``LowRank``. Adapters whose changes are
      not of low rank can be merged so by an ``exact`` strategy alone.

    An adapter that leaves a site alone is given as zeros, or as an update of rank 0. Deltas of biases, norms and experts have one
    or three dimensions. A ``ValueError`` says that options do not fit.

    The second parameter is ``weights: Sequence[float]``, one for each. All others are the strategy's options, by keyword, with
    annotations and defaults: they are the options of ``merge`` and of the command line. Three names are filled in where the
    function has them: ``rank`` (what the caller asked for, or None), ``generator`` (a ``torch.Generator``, seeded from the
    caller's ``seed`` and the site's name) and ``base`` (the base's own weight, or None where no base was given).

    Attributes:
        name: What users write in ``strategy=``.
        merge: The function.
        exact: Whether the result is a weighted sum of the changes, as a Blend makes it, where ``rank`` leaves room for it. Its
            weights may be made of those that are given, such as their shares. They are learnt by asking for the sum of unit
            changes, and hold for all that cannot be given to the function: whole changes, biases, scales, virtual tokens.
        summary: One line for listings.
    """

    name: str
    merge: Callable[..., Any]
    exact: bool = False
    summary: str = ""
