"""What else makes a folder a transformers model: configuration, tokenizer, chat template, licence; and nothing that runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from adapterkit.errors import BaseLoadError
from adapterkit.loading import check_location

if TYPE_CHECKING:
    from adapterkit.loading import Source

__all__ = ["copy_files", "fetch", "licence_of"]

CONFIG = "config.json"
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
        raise BaseLoadError(f"the base {location!r} cannot be fetched: {str(error).splitlines()[0]}") from error
    return Path(folder), Path(folder).name


def copy_files(folder: Path, target: Path, dtype: str | None) -> None:
    """Copy what belongs to the model but is no weight.

    Args:
        folder: The base's.
        target: The new model's.
        dtype: What its configuration is to say that the weights are in; None leaves that as it is.
    """
    for path in sorted({path for pattern in KEPT for path in folder.glob(pattern)}):
        if not path.is_file():
            continue
        new = target / path.relative_to(folder)
        new.parent.mkdir(exist_ok=True)
        if path.suffix == ".json":
            _copy_json(path, new, dtype if path.name == CONFIG else None)
        else:
            shutil.copyfile(path, new)


def _copy_json(path: Path, new: Path, dtype: str | None) -> None:
    raw = path.read_bytes()
    if CODE.encode() not in raw and dtype is None:
        new.write_bytes(raw)  # to the byte, as a tokenizer's vocabulary has to be
        return
    values: dict[str, Any] = json.loads(raw)
    values.pop(CODE, None)
    if dtype is not None:
        _say_dtype(values, dtype)
    new.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _say_dtype(values: dict[str, Any], dtype: str) -> None:
    """In a configuration, and in those in it that say one too."""
    values.pop("torch_dtype", None)
    values["dtype"] = dtype
    for inner in values.values():
        if isinstance(inner, dict) and {"dtype", "torch_dtype"} & set(inner):
            _say_dtype(inner, dtype)


def licence_of(folder: Path) -> dict[str, str]:
    """What the card of a model says of its licence."""
    card = folder / CARD
    if not card.is_file() or card.stat().st_size > MOST_CARD:
        return {}
    head = card.read_text(encoding="utf-8", errors="replace").split("---\n")
    try:
        said = yaml.safe_load(head[1]) if len(head) > 2 and not head[0].strip() else None
    except yaml.YAMLError:
        return {}
    names = ("license", "license_name", "license_link")
    return {name: said[name] for name in names if isinstance(said, dict) and isinstance(said.get(name), str)}
