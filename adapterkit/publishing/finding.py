"""What a text means wherever an adapter may be named: a path, a reference of the store, or an address elsewhere."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from adapterkit.compose import load_acting
from adapterkit.errors import SelectionError
from adapterkit.store import Store, is_reference

from .address import is_address
from .pulling import pull

if TYPE_CHECKING:
    from collections.abc import Iterable

    from adapterkit.adapter import Adapter
    from adapterkit.compose import Acting
    from adapterkit.registry import Registry

__all__ = ["find"]


def find(
    text: str | os.PathLike[str],
    *,
    registry: Registry,
    adapters: Iterable[Adapter] = (),
    store: Store | None = None,
) -> Acting:
    """The adapter, or the blend, that a text names.

    Args:
        text: A folder or a blend's file, ``"cards@production"``, or ``"hf://org/name@v2"``, which is pulled into the store.
        registry: The plugins to use.
        adapters: Where those of a blend's file are looked for before they are read.
        store: Where references are looked up; the default store without one.

    Raises:
        SelectionError: A path and a reference have this name.
        ArtifactError: What is found is refused.
        UnknownNameError: The store has no such name, and there is no such path.
    """
    if is_address(text):
        held = store or Store(registry=registry)
        return held.load(pull(str(text), store=held, registry=registry))
    if not isinstance(text, str) or not is_reference(text):
        return load_acting(text, adapters, registry=registry)
    held = store or Store(registry=registry)
    is_path, is_held = os.path.lexists(text), text in held
    if is_path and is_held:
        raise SelectionError(f"{text!r} is in the store, and a path here too: for the path, write './{text}'")
    # a plain word that is neither is taken for a folder that is not there
    return (
        held.load(text)
        if is_held or (not is_path and set(text) & set("@:"))
        else load_acting(text, adapters, registry=registry)
    )
