"""A model's folder as a stream: its configuration, where its weights lie, and one tensor at a time."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import torch
from safetensors import SafetensorError, safe_open

from .artifact.files import locate, read_bytes
from .artifact.layout import MOST_HEADER_BYTES
from .artifact.strict_json import parse_object
from .errors import ArtifactError, BaseLoadError
from .loading import first_line
from .quantization import hush, stored_format

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

__all__ = ["CONFIG", "INDEX", "WHOLE", "Checkpoint", "config_of", "inside", "model_without_weights"]

CONFIG = "config.json"
WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


@attrs.frozen(eq=False)
class Checkpoint:
    """The weights of a transformers model on disk; none is in memory before it is asked for.

    Attributes:
        folder: The folder.
        config: Its transformers configuration.
        files: The safetensors file of each tensor, by the name that the file gives it.
    """

    folder: Path
    config: Any
    files: Mapping[str, Path]

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Checkpoint:
        """Read where everything is.

        Raises:
            BaseLoadError: It holds no model, or one that is quantized, incomplete or not in safetensors files; or a file of it lies
                elsewhere.
        """
        path, config = Path(folder), config_of(folder)
        if getattr(config, "transformers_weights", None):
            raise BaseLoadError(
                f"{str(folder)!r} names a file of weights in its config.json, {config.transformers_weights!r:.60}: save the model "
                f"with save_pretrained, which writes {WHOLE}"
            )
        try:
            files = _files(path)
        except BaseLoadError:
            raise
        except (OSError, ValueError, SafetensorError) as error:
            raise BaseLoadError(f"{str(folder)!r} cannot be read: {first_line(error)}") from error
        if stored_format(config):
            raise BaseLoadError(
                f"{str(folder)!r} is stored in {stored_format(config)}: give the model that it was made of"
            )
        return cls(path, config, files)

    def read(self, name: str) -> Tensor:
        """The tensor that the files call ``name``; what is not looked at of it is not read."""
        try:
            with safe_open(self.files[name], "pt") as opened:
                tensor: Tensor = opened.get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise BaseLoadError(f"{str(self.files[name])!r} cannot be read: {error}") from error
        return tensor


def config_of(folder: str | os.PathLike[str]) -> Any:
    """The transformers configuration of a model's folder.

    Raises:
        BaseLoadError: It holds none, or one that transformers cannot read.
    """
    from transformers import AutoConfig

    hush()
    path = Path(folder) / CONFIG
    if not path.is_file():
        raise BaseLoadError(f"{str(folder)!r} is no folder with a model: it has no {CONFIG}")
    inside(Path(folder), CONFIG)
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # of strange values, whatever transformers' code runs into
        raise BaseLoadError(f"{str(path)!r} cannot be read: {first_line(error)}") from error


def model_without_weights(config: Any) -> Any:
    """The model that transformers makes of a configuration, on the meta device.

    Raises:
        BaseLoadError: transformers has no causal language model of this kind, or cannot make it of these values.
    """
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        try:
            return AutoModelForCausalLM.from_config(config, trust_remote_code=False).eval()
        except Exception as error:  # of strange values, whatever the model's code runs into
            raise BaseLoadError(
                f"no {config.model_type} can be made of {str(Path(config.name_or_path) / CONFIG)!r}: {first_line(error)}"
            ) from error


def inside(folder: Path, name: str) -> Path:
    """Where a file of a model truly is; what lies elsewhere on this machine must not get into what is published.

    Raises:
        BaseLoadError: It is a link, or a path, that leads out of the model's folder; to the blobs of the Hub's cache it may.
    """
    try:
        return locate(Path(os.path.realpath(folder)), name)
    except ArtifactError:
        raise BaseLoadError(
            f"{str(folder)!r} is refused: {name!r} leads out of the folder; put the file itself there"
        ) from None


def _files(folder: Path) -> dict[str, Path]:
    """The file of each tensor; where there is one of all of them, an index beside it does not count, as in transformers.

    Raises:
        BaseLoadError: There are no safetensors files, or one that the index names is missing or elsewhere.
    """
    if (folder / WHOLE).is_file():
        inside(folder, WHOLE)
        with safe_open(folder / WHOLE, "pt") as opened:
            files = dict.fromkeys(opened.keys(), folder / WHOLE)
    elif (folder / INDEX).is_file():
        named = _named(folder)
        for name in sorted(set(named.values())):
            inside(folder, name)
        files = {key: folder / name for key, name in named.items()}
    else:
        raise BaseLoadError(f"{str(folder)!r} has no {WHOLE}: save the model with save_pretrained, in safetensors")
    if not files:
        raise BaseLoadError(f"{str(folder)!r} has no tensors in its files")
    lost = sorted({file.name for file in files.values() if not file.is_file()})
    if lost:
        raise BaseLoadError(f"{str(folder)!r} lacks {lost[0]!r}, which its index names")
    return files


def _named(folder: Path) -> dict[str, str]:
    """What the index says: the name of each tensor's file.

    Raises:
        BaseLoadError: It cannot be read.
    """
    inside(folder, INDEX)
    try:
        named = parse_object(read_bytes(Path(os.path.realpath(folder)), INDEX, MOST_HEADER_BYTES), INDEX).get(
            "weight_map"
        )
    except ArtifactError as error:
        raise BaseLoadError(f"{str(folder)!r} cannot be read: {error}") from None
    if not isinstance(named, dict) or not all(isinstance(name, str) for name in named.values()):
        raise BaseLoadError(f"{str(folder / INDEX)!r} cannot be read: its weight_map is no table of file names")
    return named
