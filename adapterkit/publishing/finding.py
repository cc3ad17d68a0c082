"""What a text means wherever an adapter may be named: a path, a reference of the store, or an address elsewhere."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from adapterkit.adapter import Adapter
from adapterkit.compose import load_acting
from adapterkit.errors import SelectionError
from adapterkit.store import Store, is_reference

from .address import is_address
from .pulling import pull

if TYPE_CHECKING:
    from collections.abc import Iterable

    from adapterkit.compose import Acting
    from adapterkit.registry import Registry

__all__ = ["find", "find_one", "is_named"]


def find(
    text: str | os.PathLike[str],
    *,
    registry: Registry,
    adapters: Iterable[Adapter] = (),
    folder: Path = Path(),
    store: Store | None = None,
) -> Acting:
    """The adapter, or the blend, that a text names.

    Args:
        text: A folder or a blend's file, ``"cards@production"``, or ``"hf://org/name@v2"``, which is pulled into the store.
        registry: The plugins to use.
        adapters: Where those of a blend's file are looked for before they are read.
        folder: What paths begin at.
        store: Where references are looked up; the default store without one.

    Raises:
        SelectionError: A path and a reference have this name.
        ArtifactError: What is found is refused.
        UnknownNameError: The store has no such name, and there is no such path.
    """
    held = store or Store(registry=registry)
    if is_address(text):
        return held.load(pull(str(text), store=held, registry=registry))
    path = folder / text
    if not isinstance(text, str) or not is_reference(text):
        return load_acting(path, adapters, registry=registry)
    is_path, is_held = os.path.lexists(path), text in held
    if is_path and is_held:
        raise SelectionError(f"{text!r} is in the store, and a path here too: for the path, write './{text}'")
    if is_held or (_is_plainly_held(text) and not is_path):
        return held.load(text)
    return load_acting(
        path, adapters, registry=registry
    )  # a word that is nothing is taken for a folder that is not there


def find_one(named: Adapter | str | os.PathLike[str], *, registry: Registry, store: Store | None = None) -> Adapter:
    """One adapter: itself, or what a text names; raises as :func:`find`, and a SelectionError where that is several."""
    found = named if isinstance(named, Adapter) else find(named, registry=registry, store=store)
    if not isinstance(found, Adapter):
        raise SelectionError(f"{str(named)!r} is several adapters at once, and one is asked for")
    return found


def is_named(text: str, folder: Path = Path()) -> bool:
    """Whether something answers to a text, before anything is loaded; of an address, that is seen when it is asked."""
    if os.path.exists(folder / text) or is_address(text):  # noqa: PTH110 - Path.exists raises on a long name
        return True
    return is_reference(text) and (_is_plainly_held(text) or text in Store())


def _is_plainly_held(text: str) -> bool:
    """Whether it cannot but be a reference, so that the store is the one to say what is wrong with it."""
    return bool(set(text) & set("@:"))
