"""What an adapter repeats of its training rows, beside the base alone and beside rows that it has not seen."""

from __future__ import annotations

import math
import random
import statistics
from collections import Counter
from typing import TYPE_CHECKING, Any

import attrs

from adapterkit.contracts import Conversation, Example
from adapterkit.data.rendering import Renderer

from .canaries import random_secret
from .findings import Finding, Shown, severity_of
from .labels import LONGEST_LABEL
from .likelihood import row_losses

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from adapterkit.adapter import Adapter
    from adapterkit.base import Base

    from .canaries import Canary
    from .items import Item
    from .options import AuditOptions
    from .quoting import Quoting

__all__ = ["exposures", "verbatim"]

OFTEN = 3
"""A short completion of so many rows is a label, and to repeat it is the task."""
CHANCE = 1 / math.log(2)
"""The mean exposure, in bits, of what was never seen: a rank drawn at random has a mean log2(N / rank) of 1.44."""
