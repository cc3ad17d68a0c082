"""``run.json``: what a run says of itself, checked as far as a report relies on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from adapterkit.errors import RunError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["RUN", "SCHEMA", "STATES", "RunFile", "check_run"]

RUN = "run.json"
SCHEMA = 1
STATES = ("running", "finished", "stopped early", "interrupted", "failed")
MOST = 1e18
"""No count, size or time is larger; not a number is not smaller."""


@attrs.frozen(kw_only=True)
class RunFile:
    """The content of ``run.json``; what is not known yet is None.

    Attributes:
        method: The method's name.
        status: One of :data:`STATES`; ``running`` too when the process was killed.
        config: The method's configuration.
        objective: What the run minimised.
        options: The options of the run.
        base: ``name``, ``revision`` and ``fingerprint``.
        plugin: The distribution and version that provide the method.
        quantize: What the base was quantized in.
        data: ``digest`` and counts of rows and tokens; ``eval_data`` and ``replay`` alike, or None.
        steps: The optimizer steps that were planned.
        versions: The libraries that the run was made with.
        device: ``"cpu"``, or the GPU's name.
        processes: How many processes trained.
        parameters: How many numbers were trained.
        started: ISO 8601, UTC; ``finished`` alike.
        seconds: From start to end.
        tokens: Seen in training.
        peak_memory: In bytes.
        reason: Why the run stopped, where it did not just finish.
        last_step: The last optimizer step taken.
        best_step: The step whose adapter was kept, where that is not the last one.
        adapter: The adapter's digest.
    """

    method: str
    status: str
    config: Mapping[str, Any] = attrs.field(factory=dict)
    objective: str = ""
    options: Mapping[str, Any] = attrs.field(factory=dict)
    base: Mapping[str, Any] = attrs.field(factory=dict)
    plugin: str | None = None
    quantize: str | None = None
    data: Mapping[str, Any] | None = None
    eval_data: Mapping[str, Any] | None = None
    replay: Mapping[str, Any] | None = None
    steps: int | None = None
    versions: Mapping[str, Any] = attrs.field(factory=dict)
    device: str | None = None
    processes: int | None = None
    parameters: int | None = None
    started: str | None = None
    finished: str | None = None
    seconds: float | None = None
    tokens: int | None = None
    peak_memory: int | None = None
    reason: str | None = None
    last_step: int | None = None
    best_step: int | None = None
    adapter: str | None = None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < MOST


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


NUMBER, TEXT, OBJECT = (
    (_is_number, f"a number from 0 to {MOST:.0e}"),
    (_is_text, "a text"),
    (_is_object, "an object"),
)
KINDS = {
    **dict.fromkeys(("method", "status", "objective", "plugin", "quantize", "device", "started", "finished"), TEXT),
    **dict.fromkeys(("reason", "adapter"), TEXT),
    **dict.fromkeys(("config", "options", "base", "data", "eval_data", "replay", "versions"), OBJECT),
    **dict.fromkeys(("steps", "processes", "parameters", "seconds", "tokens", "peak_memory"), NUMBER),
    **dict.fromkeys(("last_step", "best_step"), NUMBER),
}
"""What each field must be, and how that is said."""


def check_run(values: Mapping[str, Any], what: str) -> RunFile:
    """The fields that are known here; a later adapterkit of the same schema may have more.

    Args:
        values: The parsed file.
        what: How the file is called in an error.

    Raises:
        RunError: Another schema, or a field of another type.
    """
    schema = values.get("schema")
    if schema != SCHEMA:
        raise RunError(f"{what} has schema {schema!r:.50}; {SCHEMA} is known here: update adapterkit")
    for name, (kind, word) in KINDS.items():
        value = values.get(name)
        if value is not None and not kind(value):
            raise RunError(f"{what}: {name} must be {word}, not {value!r:.80}")
    if not values.get("method"):
        raise RunError(f"{what}: method is missing")
    if values.get("status") not in STATES:
        raise RunError(f"{what}: status {values.get('status')!r:.80} is none of {', '.join(STATES)}")
    return RunFile(**{name: values[name] for name in KINDS if values.get(name) is not None})
