"""A model's folder as a stream: its configuration, where its weights lie, and one tensor at a time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import torch
from safetensors import SafetensorError, safe_open

from adapterkit.errors import BaseLoadError
from adapterkit.quantization import hush, stored_format

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from torch import Tensor

__all__ = ["Checkpoint", "config_of", "model_without_weights"]

INDEX = "model.safetensors.index.json"
WHOLE = "model.safetensors"


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
            BaseLoadError: It holds no model, or one that is quantized, incomplete or not in safetensors files.
        """
        path, config = Path(folder), config_of(folder)
        try:
            files = _files(path)
        except (OSError, ValueError, SafetensorError) as error:
            raise BaseLoadError(f"{str(folder)!r} cannot be read: {str(error).splitlines()[0]}") from error
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
        BaseLoadError: It holds none.
    """
    from transformers import AutoConfig

    hush()
    if not (Path(folder) / "config.json").is_file():
        raise BaseLoadError(f"{str(folder)!r} is no folder with a model: it has no config.json")
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise BaseLoadError(f"{str(folder)!r} cannot be read: {str(error).splitlines()[0]}") from error


def _files(folder: Path) -> dict[str, Path]:
    """The file of each tensor.

    Raises:
        BaseLoadError: There are no safetensors files, or one that the index names is missing.
    """
    if (folder / INDEX).is_file():
        named = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
        files = {name: folder / file for name, file in named.items()}
    elif (folder / WHOLE).is_file():
        with safe_open(folder / WHOLE, "pt") as opened:
            files = dict.fromkeys(opened.keys(), folder / WHOLE)
    else:
        raise BaseLoadError(f"{str(folder)!r} has no {WHOLE}: save the model with save_pretrained, in safetensors")
    lost = sorted({file.name for file in files.values() if not file.is_file()})
    if lost:
        raise BaseLoadError(f"{str(folder)!r} lacks {lost[0]!r}, which its index names")
    return files


def model_without_weights(config: Any) -> Any:
    """The model that transformers makes of a configuration, on the meta device.

    Raises:
        BaseLoadError: transformers has no causal language model of this kind.
    """
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        try:
            return AutoModelForCausalLM.from_config(config, trust_remote_code=False).eval()
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise BaseLoadError(f"a {config.model_type} cannot be made: {str(error).splitlines()[0]}") from error
