"""What was not the same in all of several runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapterkit.config import canonical_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .reading import RunFolder

__all__ = ["differences"]

PARTS = ("data", "eval_data", "replay")
SHORT = 12
"""Characters of a digest that tell it from others."""


def differences(runs: Sequence[RunFolder]) -> dict[str, tuple[Any, ...]]:
    """By name, a value for each run, of what is not the same in all; None where a run has none.

    The method, the base and the data come first, then the method's options and those of the run.
    """
    told = [dict(_circumstances(run)) for run in runs]
    names = dict.fromkeys(name for one in told for name in one)
    found = {name: tuple(one.get(name) for one in told) for name in names}
    return {name: values for name, values in found.items() if len({_comparable(value) for value in values}) > 1}


def _circumstances(run: RunFolder) -> Iterator[tuple[str, Any]]:
    told = run.run
    yield "method", told.method
    yield "objective", told.objective
    yield "base", told.base.get("name")
    yield "base, commit", told.base.get("revision") or None
    yield "base, fingerprint", _cut(told.base.get("fingerprint"))
    yield "quantize", told.quantize
    for part in PARTS:
        values: Mapping[str, Any] = getattr(told, part) or {}
        yield part, _cut(values.get("digest"))
        yield f"{part}, rows", values.get("rows")
    yield from told.config.items()
    for name, value in told.options.items():
        yield (f"{name} (of the run)" if name in told.config else name), value
    yield "device", told.device
    yield "processes", told.processes
    yield "plugin", told.plugin
    for name, version in told.versions.items():
        yield f"version of {name}", version


def _cut(digest: Any) -> str | None:
    return f"{digest[:SHORT]}…" if isinstance(digest, str) and digest else None


def _comparable(value: Any) -> str:
    try:
        return canonical_json(value)
    except ValueError:  # not a finite number
        return repr(value)
