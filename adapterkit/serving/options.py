"""How an engine serves: sizes, budgets and limits."""

from __future__ import annotations

import attrs
from attrs.validators import ge, gt, optional

__all__ = ["EngineOptions"]


@attrs.frozen(kw_only=True)
class EngineOptions:
    """How an engine serves. Sizes of memory are bytes, or texts such as ``"4GB"``."""

    max_batch: int = attrs.field(default=32, validator=ge(1))
    """Requests that are answered at once."""
    max_length: int | None = attrs.field(default=None, validator=optional(ge(2)))
    """The most tokens of a prompt and its answer together; the base's context by default."""
    kv_memory: int | str | None = None
    """For keys and values. By default 1 GiB, and on a GPU most of what is free when the engine starts."""
    adapter_memory: int | str | None = None
    """For adapters where the base computes; half as much again for what several of them do together. By default 1 GiB, and on a
    GPU an eighth of its memory."""
    host_memory: int | str | None = None
    """For adapters on the host, beside those where the base computes; 4 GiB by default."""
    cuda_graphs: bool = True
    """On a GPU: whether steps that add a token to each answer are recorded once and replayed, which is faster."""
    prefill_tokens: int = attrs.field(default=512, validator=ge(16))
    """Tokens of prompts that are read between two steps of the answers under way, so that these do not wait for a long prompt."""
    prefix_cache: bool = True
    """Whether keys and values of a prompt are kept for later prompts of the same adapters that begin with the same tokens."""
    max_queue: int = attrs.field(default=1024, validator=ge(1))
    """Requests that may wait; more are refused (429 over HTTP)."""
    max_queue_per_adapter: int = attrs.field(default=256, validator=ge(1))
    """Requests for one adapter that may wait."""
    max_queue_per_key: int | None = attrs.field(default=None, validator=optional(ge(1)))
    """Requests with one API key that may wait."""
    max_running_per_adapter: int | None = attrs.field(default=None, validator=optional(ge(1)))
    """Requests for one adapter that are answered at once."""
    max_running_per_key: int | None = attrs.field(default=None, validator=optional(ge(1)))
    """Requests with one API key that are answered at once."""
    quantum: int = attrs.field(default=256, validator=ge(1))
    """Tokens that each waiting adapter may spend in its turn (deficit round robin)."""
    timeout: float | None = attrs.field(default=None, validator=optional(gt(0.0)))
    """Seconds after which a request is given up, where it does not say itself."""
