"""What else makes a folder a transformers model: configuration, tokenizer, chat template, licence; and nothing that runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from adapterkit.checkpoint import CONFIG, inside
from adapterkit.errors import BaseLoadError
from adapterkit.loading import check_location, first_line

if TYPE_CHECKING:
    from collections.abc import Mapping

    from adapterkit.loading import Source

__all__ = ["CARD", "fetch", "licence_of", "rest_of", "write_rest"]

KEPT = (
    CONFIG,
    "generation_config.json",
    # tokenizers
    "added_tokens.json",
    "merges.txt",
    "normalizer.json",
    "sentencepiece.bpe.model",
    "special_tokens_map.json",
    "spiece.model",
    "tekken.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer.model.v3",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
    # templates, and what prepares other inputs than text
    "chat_template.jinja",
    "chat_template.json",
    "additional_chat_templates/*.jinja",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    # what has to go wherever the weights go
    "LICENSE*",
    "LICENCE*",
    "NOTICE*",
    "USE_POLICY*",
)
"""Patterns of the names."""
CARD = "README.md"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors")
CODE = "auto_map"
"""Names files of Python beside the model, which are never run, and not copied."""
MOST_CARD = 1 << 20


def fetch(source: Source) -> tuple[Path, str]:
    """The folder of a base, from the Hub if it has to be, and its commit there; empty where it comes from a disk.

    Raises:
        BaseLoadError: There is no such model.
    """
    location = str(source.location)
    check_location(location)
    if Path(location).is_dir():
        return Path(location), ""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = snapshot_download(
            location, revision=source.revision or "main", allow_patterns=[*KEPT, CARD, *WEIGHTS], tqdm_class=None
        )
    except (OSError, ValueError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        raise BaseLoadError(f"the base {location!r} cannot be fetched: {first_line(error)}") from error
    return Path(folder), Path(folder).name


def rest_of(folder: Path, dtype: str | None) -> dict[str, bytes | Path]:
    """What belongs to the model but is no weight, by its path in the folder: what it is to hold, or the file to copy.

    Args:
        folder: The base's.
        dtype: What its configuration is to say that the weights are in; None leaves that as it is.

    Raises:
        BaseLoadError: A file lies elsewhere, or is not the JSON that its name says.
    """
    found: dict[str, bytes | Path] = {}
    for path in sorted({path for pattern in KEPT for path in folder.glob(pattern)}):
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            true = inside(folder, name)
            found[name] = _json(path, dtype if name == CONFIG else None) if path.suffix == ".json" else true
    return found


def write_rest(rest: Mapping[str, bytes | Path], target: Path) -> None:
    """Write what :func:`rest_of` found into the new model's folder."""
    for name, held in rest.items():
        new = target / name
        new.parent.mkdir(exist_ok=True)
        if isinstance(held, bytes):
            new.write_bytes(held)
        else:
            shutil.copyfile(held, new)


def _json(path: Path, dtype: str | None) -> bytes:
    """To the byte, as a tokenizer's vocabulary has to be, unless there is something to change."""
    raw = path.read_bytes()
    try:
        values = json.loads(raw)
        if not isinstance(values, dict) or (CODE not in values and dtype is None):
            return raw
        values.pop(CODE, None)
        if dtype is not None:
            _say_dtype(values, dtype)
        return (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode()
    except (ValueError, RecursionError) as error:
        raise BaseLoadError(f"{str(path)!r} cannot be read: {first_line(error)}") from None


def _say_dtype(values: dict[str, Any], dtype: str) -> None:
    """In a configuration, and in those in it that say one too."""
    values.pop("torch_dtype", None)
    values["dtype"] = dtype
    for inner in values.values():
        if isinstance(inner, dict) and {"dtype", "torch_dtype"} & set(inner):
            _say_dtype(inner, dtype)


def licence_of(folder: Path) -> dict[str, str]:
    """What the card of a model says of its licence.

    Raises:
        BaseLoadError: The card lies elsewhere, or what it says cannot be read.
    """
    card = folder / CARD
    if not card.is_file() or inside(folder, CARD).stat().st_size > MOST_CARD:
        return {}
    head = card.read_text(encoding="utf-8", errors="replace").split("---\n")
    try:
        said = yaml.safe_load(head[1]) if len(head) > 2 and not head[0].strip() else None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a day that no month has
        raise BaseLoadError(
            f"{str(card)!r} does not say its licence, its front matter cannot be read: {first_line(error)}"
        ) from None
    names = ("license", "license_name", "license_link")
    return {name: said[name] for name in names if isinstance(said, dict) and isinstance(said.get(name), str)}
