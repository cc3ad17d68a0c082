"""The weights that a quantized base was made of, as its checkpoint has them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from adapterkit import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from adapterkit import Base

__all__ = ["original_weights"]


def original_weights(base: Base, names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
    """The weight of each of these sites, one after another.

    Raises:
        ConfigError: The base says nothing of its checkpoint, or the checkpoint has other weights.
    """
    from safetensors import safe_open

    places = {}
    for path in sorted(_folder(base).glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            places.update(dict.fromkeys(file.keys(), path))
    inner = (
        f"{getattr(base.model, 'base_model_prefix', '')}."  # some checkpoints leave the outer module out of the names
    )
    for name in names:
        key = next((key for key in (f"{name}.weight", f"{name.removeprefix(inner)}.weight") if key in places), None)
        if key is None:
            raise _refusal(f"{base.source.name!r} stores no weight of {name!r}")
        with safe_open(places[key], framework="pt") as file:
            weight: Tensor = file.get_tensor(key)
        if not weight.is_floating_point():
            raise _refusal(f"{base.source.name!r} is stored quantized")
        yield name, weight


def _folder(base: Base) -> Path:
    """Where the checkpoint is; nothing is downloaded that loading the base has not."""
    if base.source.is_object:
        raise _refusal("this base is a model object; name the folder or the Hub id that it comes from")
    folder = Path(base.source.location)
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(str(base.source.location), revision=base.source.revision, local_files_only=True))
    except LocalEntryNotFoundError as error:
        raise _refusal(f"{base.source.name!r} is not in the cache") from error


def _refusal(reason: str) -> ConfigError:
    return ConfigError(
        "options of LoRA do not fit this base", [f"init_lora_weights: 'loftq' needs the original weights: {reason}"]
    )
