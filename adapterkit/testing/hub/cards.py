"""What the Hub reads out of the files themselves."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from .repositories import Commit, Repository

__all__ = ["card_data", "tags_of", "tensors_of"]

_FRONT = re.compile(r"---[ \t]*\r?\n(.*?)\r?\n?---[ \t]*(\r?\n|\Z)", re.DOTALL)


def card_data(readme: str) -> dict[str, Any]:
    """The metadata at the head of a card; empty if there is none.

    Raises:
        ValueError: It is no mapping.
        yaml.YAMLError: It is no YAML.
    """
    front = _FRONT.match(readme.removeprefix("\ufeff"))
    data = yaml.safe_load(front[1]) if front else None
    if data is not None and not isinstance(data, dict):
        raise ValueError("the metadata of the card is no mapping")
    return json.loads(json.dumps(data or {}, default=str))  # type: ignore[no-any-return]


def tags_of(data: dict[str, Any]) -> list[str]:
    """The tags of a repository whose card holds this metadata."""
    tags = [data[name] for name in ("library_name", "pipeline_tag") if name in data]
    tags += data.get("tags") or []
    bases = data.get("base_model") or []
    for base in bases if isinstance(bases, list) else [bases]:
        relation = data.get("base_model_relation")
        tags += [f"base_model:{base}", *([f"base_model:{relation}:{base}"] if relation else [])]
    tags += [f"dataset:{one}" for one in data.get("datasets") or []]
    if "license" in data:
        tags.append(f"license:{data['license']}")
    return list(dict.fromkeys(map(str, [*tags, "region:us"])))


def tensors_of(repo: Repository, commit: Commit) -> dict[str, Any] | None:
    """How many numbers of each type the safetensors files hold; ``None`` if there is no readable one."""
    numbers: Counter[str] = Counter()
    for path, file in commit.files.items():
        if path.endswith(".safetensors") and "/" not in path:
            try:
                numbers.update(_numbers(repo.read(file) or b""))
            except (ValueError, KeyError, TypeError, AttributeError):
                return None
    return {"parameters": dict(sorted(numbers.items())), "total": numbers.total()} if numbers else None


def _numbers(content: bytes) -> Counter[str]:
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    found: Counter[str] = Counter()
    for name, one in header.items():
        if name != "__metadata__":
            found[one["dtype"]] += math.prod(one["shape"])
    return found
