"""Where commands write: never over what they read, and never over what is not theirs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from adapterkit.artifact.replacing import check_apart, check_replaceable
from adapterkit.compose import blended_folders, named_parts
from adapterkit.errors import ArtifactError, ConfigError, SelectionError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

__all__ = ["check_output", "folders_of"]


def check_output(output: Path, inputs: Iterable[str | os.PathLike[str]], *, replaces: bool = True) -> None:
    """Say that nothing can be written there before hours of work are lost on it.

    Args:
        output: The folder that is to be written.
        inputs: What is read.
        replaces: Whether an adapter that is there is replaced, and anything else refused here.

    Raises:
        ConfigError: It is one of the inputs, or holds something else than an adapter.
    """
    try:
        check_apart(output, inputs)
        if replaces:
            check_replaceable(output)
    except SelectionError as error:
        raise ConfigError("OUTPUT does not fit", [str(error)]) from None
    except ArtifactError as error:
        raise ConfigError("OUTPUT does not fit", [f"{str(output)!r}: {error}"]) from None


def folders_of(text: str) -> list[Path]:
    """The paths that ``ADAPTER`` names; of a blend's file, the folders that it names as well.

    Raises:
        ArtifactError: A file is none of a blend.
    """
    paths = [Path(text)] if Path(text).exists() else [Path(name) for name, _ in named_parts(text)]
    return paths + [folder for path in paths if path.is_file() for folder in blended_folders(path)]
