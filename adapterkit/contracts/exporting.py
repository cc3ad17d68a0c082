"""How an adapter is written for other programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable

    from adapterkit.exporting import Export

__all__ = ["Exporter"]


@attrs.frozen(eq=False, kw_only=True)
class Exporter:
    """A form that another program reads.

    ``export`` is given an :class:`~adapterkit.Export`: the adapter, an empty folder for its files, and the base's folder where the
    caller named one. It writes the files, and returns a line that says how they are used. What the form cannot hold it refuses
    with :class:`~adapterkit.SelectionError`; nothing is left of the folder then.

    Attributes:
        name: What users write in ``to=``.
        export: The function.
        summary: One line for listings.
        requires: The package that it needs, if it is not one of adapterkit's own; a user who lacks it is told how to install it.
    """

    name: str
    export: Callable[[Export], str]
    summary: str = ""
    requires: str = ""
