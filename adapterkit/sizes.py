"""Sizes of files and of memory, as people write them."""

from __future__ import annotations

import math
import re

from .errors import ConfigError

__all__ = ["parse_size"]

UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


def parse_size(text: int | str, option: str) -> int:
    """Bytes, of a number or of a text such as ``"5GB"`` or ``"512MiB"``.

    Raises:
        ConfigError: It is neither, or nothing; names the option.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]I?B)?", str(text).strip().upper())
    size = float(found[1]) * UNITS.get(found[2] or "", 1) if found else 0.0
    if not 1 <= size < math.inf or isinstance(text, bool):
        raise ConfigError("options do not fit", [f"{option}: {text!r:.60} is no size; give bytes, or '5GB'"])
    return int(size)
