"""Which of two folders is the base, where they tell: the other way round, an adapter would take away what was learnt."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapterkit.artifact.files import read_bytes
from adapterkit.artifact.layout import BAKED, MANIFEST, MOST_HEADER_BYTES, PEFT_CONFIG
from adapterkit.artifact.strict_json import parse_object
from adapterkit.errors import ArtifactError, SelectionError
from adapterkit.fingerprint import QUANTIZED

if TYPE_CHECKING:
    from adapterkit.checkpoint import Checkpoint

__all__ = ["check_base_is_model", "check_base_is_older", "holds_adapter"]

CURE = "the arguments are the other way round; the base comes first"


def holds_adapter(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder holds an adapter."""
    path = Path(folder)
    return any((path / name).is_file() for name in (MANIFEST, PEFT_CONFIG))


def check_base_is_model(base: str | os.PathLike[str], tuned: Any) -> None:
    """Refuse an adapter where the base belongs, and a model where the adapter does.

    Raises:
        SelectionError: They are.
    """
    is_folder = isinstance(tuned, (str, os.PathLike))
    if holds_adapter(base) and is_folder and (Path(tuned) / "config.json").is_file() and not holds_adapter(tuned):
        raise SelectionError(f"{str(base)!r} is an adapter, and {str(tuned)!r} a model: {CURE}")


def check_base_is_older(base: Checkpoint, tuned: Checkpoint, fingerprint: str) -> None:
    """Refuse a base whose own report says that it was baked from what is given as tuned.

    Args:
        base: The base.
        tuned: What is said to have been tuned from it.
        fingerprint: Of ``tuned``.

    Raises:
        SelectionError: It was.
    """
    made_of = _base_of(base.folder)
    name, known = made_of.get("name"), made_of.get("fingerprint")
    is_place = isinstance(name, str) and bool(name) and os.path.realpath(name) == os.path.realpath(tuned.folder)
    is_same = known == fingerprint and not fingerprint.endswith(
        QUANTIZED
    )  # half of one is what all models of a base share
    if is_place or is_same:
        raise SelectionError(f"{str(base.folder)!r} was baked from {str(tuned.folder)!r}: {CURE}")


def _base_of(folder: Path) -> dict[str, Any]:
    """What the report of a baked model says of its base; nothing where there is no report that can be read."""
    try:
        said = parse_object(read_bytes(folder, BAKED, MOST_HEADER_BYTES), BAKED).get("base")
    except ArtifactError:
        return {}
    return said if isinstance(said, dict) else {}
