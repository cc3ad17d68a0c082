"""Reads JSON from strangers: one meaning or none."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from adapterkit.errors import ArtifactError

__all__ = ["parse_object", "unique_keys"]

MOST_DEPTH = 32
"""No configuration nests deeper; everything behind the parser may recurse without fear."""
MOST_WHOLE = 1 << 64
"""Whole numbers are below this, whichever their sign: a seed may take 64 bits, and what is larger does not fit into a float."""


def parse_object(data: bytes, what: str) -> dict[str, Any]:
    """The object that ``data`` holds.

    Raises:
        ArtifactError: Not JSON, not an object, a key twice in one object, a number that is not finite or takes more
            than 64 bits, text that is not Unicode, or nesting beyond any configuration's.
    """
    try:
        text = data.decode("utf-8")
        value = json.loads(
            text,
            object_pairs_hook=unique_keys,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_whole,
        )
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise ArtifactError(f"{what} is nested too deeply") from None
    except ArtifactError as error:
        raise ArtifactError(f"{what}: {error}") from None
    except ValueError as error:
        raise ArtifactError(f"{what} is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise ArtifactError(f"{what} must hold a JSON object, not {type(value).__name__}")
    if _depth(value) > MOST_DEPTH:
        raise ArtifactError(f"{what} is nested too deeply: at most {MOST_DEPTH} levels")
    return value


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A hook for ``json.loads``: an object in which no key comes twice, as readers differ on which one counts."""
    values = dict(pairs)
    if len(values) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ArtifactError(f"the key {twice[:100]!r} comes twice")
    return values


def _refuse_constant(name: str) -> NoReturn:
    raise ArtifactError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ArtifactError(f"the number {text[:40]} is too large")
    return value


def _whole(text: str) -> int:
    value = int(text) if len(text) <= len(str(-MOST_WHOLE)) else MOST_WHOLE
    if abs(value) >= MOST_WHOLE:
        raise ArtifactError(f"the number {text[:40]} is too large: it takes more than 64 bits")
    return value


def _depth(value: Any) -> int:
    # level by level, so that a deep value cannot exhaust the stack here either
    depth, level = 0, [value]
    while level:
        depth += 1
        level = [child for one in level for child in _children(one)]
    return depth


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
