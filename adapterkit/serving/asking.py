"""What a request asks for: how to answer it, and with which adapters."""

from __future__ import annotations

import attrs
from attrs.validators import and_, deep_iterable, ge, gt, instance_of, le, max_len, min_len, optional

from adapterkit.artifact.manifest import json_digest

__all__ = ["AskOptions", "Choice"]

MOST_SEED = 2**63 - 1
MOST_TEMPERATURE = 1e6
MOST_STOPS = 16
MOST_LOGPROBS = 20


@attrs.frozen(kw_only=True)
class AskOptions:
    """How to answer one request."""

    max_new_tokens: int | None = attrs.field(default=64, validator=optional(ge(1)))  # type: ignore[arg-type]
    """The longest answer, in tokens; None is as many as fit behind the prompt."""
    temperature: float = attrs.field(default=0.0, validator=and_(ge(0.0), le(MOST_TEMPERATURE)))
    """0 takes the likeliest token each time; higher is more varied."""
    top_p: float = attrs.field(default=1.0, validator=and_(gt(0.0), le(1.0)))
    """Choose among the likeliest tokens that together have this probability."""
    top_k: int | None = attrs.field(default=None, validator=optional(ge(1)))
    """Choose among so many of the likeliest tokens."""
    seed: int | None = attrs.field(default=None, validator=optional(and_(ge(0), le(MOST_SEED))))
    """Governs the choice; another one for each request without it."""
    stop: tuple[str, ...] = attrs.field(
        default=(),
        validator=and_(max_len(MOST_STOPS), deep_iterable(and_(instance_of(str), min_len(1), max_len(1000)))),
    )
    """Texts that end the answer, which is given without them."""
    logprobs: int | None = attrs.field(default=None, validator=optional(and_(ge(0), le(MOST_LOGPROBS))))
    """Give the log-probability of each token, and of so many of the likeliest beside it."""
    json_schema: str | None = None
    """The answer is JSON that fits this schema, itself given as JSON; needs ``adapterkit[serve]``."""
    timeout: float | None = attrs.field(default=None, validator=optional(gt(0.0)))
    """Seconds after which the request is given up, wherever it is."""


@attrs.frozen
class Choice:
    """What a request acts with, by content: an alias that moves later changes nothing of it.

    Attributes:
        model: What was asked for, such as ``"cards@production"`` or ``"cards*0.7+tone*0.3"``.
        parts: Digests of adapters and their weights, in order; none for the base alone.
        name: What its traffic is counted under: the part of ``model`` that names adapters and not versions, such as ``"cards"``.
    """

    model: str
    parts: tuple[tuple[str, float], ...] = ()
    name: str = ""

    @property
    def digest(self) -> str:
        """The digest of the adapter, or of all with their weights as of a Blend; empty for the base alone.

        It is the root of every key under which something computed for the request is kept.
        """
        if len(self.parts) == 1 and self.parts[0][1] == 1.0:
            return self.parts[0][0]
        return json_digest([list(part) for part in self.parts]) if self.parts else ""
