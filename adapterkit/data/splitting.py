"""Holds rows out of the training data."""

from __future__ import annotations

import hashlib
import math
import random
from typing import TYPE_CHECKING, Any

import numpy as np

from adapterkit.config import canonical_json
from adapterkit.contracts import Preference, Text
from adapterkit.errors import DataError

from .dataset import last_answer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adapterkit.contracts import Record

__all__ = ["check_split", "held_out"]


def check_split(split: float) -> str:
    """What is wrong with ``eval_split``; empty when it is a fraction between 0 and 1 or a number of rows."""
    whole = isinstance(split, (int, float)) and not isinstance(split, bool) and math.isfinite(split)
    if whole and (0 < split < 1 or (split >= 1 and split == int(split))):
        return ""
    return f"eval_split: must be a fraction between 0 and 1 or a number of rows, not {split!r}"


def held_out(records: Sequence[Record], split: float, seed: int) -> list[int]:
    """The numbers of the rows to hold out: ``seed`` draws them, and rows of the same prompt stay together.

    Rows that ask the same are drawn or left as one, so that no held-out prompt is trained on; where such a group does not
    fit any more, it is passed over, and the next ones are drawn.

    Args:
        records: All rows.
        split: The part of them to hold out, or their number.
        seed: Decides the order in which prompts are drawn.

    Raises:
        DataError: Nothing would be left to train on, or nothing can be held out.
    """
    wanted = max(1, min(round(split * len(records)), len(records) - 1)) if split < 1 else int(split)
    if wanted >= len(records):
        raise DataError(
            f"eval_split={split:g} would hold out all of {len(records)} rows: nothing would be left to train on"
        )
    asked = np.fromiter(map(_asked, records), np.uint64, len(records))
    _, group, sizes = np.unique(asked, return_inverse=True, return_counts=True)
    if len(sizes) == 1:
        raise DataError(
            f"eval_split: all {len(records)} rows have the same prompt, so none can be held out; give eval_data"
        )
    order = list(range(len(sizes)))
    random.Random(f"{seed}/eval_split").shuffle(order)  # noqa: S311 - not a secret
    drawn, count = np.zeros(len(sizes), bool), 0
    for number in order:
        if count + sizes[number] <= wanted:
            drawn[number] = True
            count += int(sizes[number])
    if not count:
        drawn[sizes.argmin()] = True
    return np.flatnonzero(drawn[group]).tolist()


def _asked(record: Record) -> int:
    """A number for what is asked: what stands before the last answer; raw text asks all that it says."""
    if isinstance(record, Text):
        asked: Any = record.text
    else:
        turns = record.prompt if isinstance(record, Preference) else record.messages[: last_answer(record.messages)]
        asked = [record.tools, *((turn.role, turn.content, turn.tool_calls) for turn in turns)]
    return int.from_bytes(hashlib.blake2b(canonical_json(asked).encode(), digest_size=8).digest())
