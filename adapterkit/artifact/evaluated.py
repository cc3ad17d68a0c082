"""What a manifest's ``evaluation`` holds: results on rows, the bare base's beside, and what the adapter has forgotten.

::

    {
        "results": [
            {
                "name": "test.csv",
                "digest": "…", "rows": 200, "of": 3080,
                "scores": {"accuracy": 0.91}, "base": {"accuracy": 0.02},
                "intervals": {"accuracy": [0.87, 0.95]}, "base_intervals": {"accuracy": [0.0, 0.04]}, "confidence": 0.95
            }
        ],
        "forgetting": {"name": "…", "loss": 3.21, "base": 3.08}
    }

``digest`` is the data's, ``of`` how many rows it has where fewer were scored, and ``forgetting`` the loss on text that the training
was not about. All but a result's ``name`` and ``scores`` may be missing, and a manifest from elsewhere may hold anything: what is
read here is only what has the right shape.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import attrs

__all__ = ["Forgetting", "Result", "forgetting_of", "is_lower_better", "results_of", "rounded", "with_result"]

DIGITS = 6
"""Of a score: more would say how a sum was rounded, on one machine and not on another."""
LARGEST = 1 << 53
"""Of whole numbers: none that is counted here is larger, and a stranger's may be too large for a float."""

Interval = tuple[float, float]


@attrs.frozen(kw_only=True)
class Result:
    """Scores on some rows.

    Attributes:
        name: What the rows are called.
        digest: The sha256 of their records; empty when it is not known.
        rows: How many were scored.
        of: How many there are.
        scores: By name.
        base: The base's own, as far as they are known.
        intervals: Between what values each score may well lie on all rows of the kind.
        base_intervals: The same of the base's.
        confidence: Of the intervals.
    """

    name: str
    digest: str = ""
    rows: int | None = None
    of: int | None = None
    scores: Mapping[str, float]
    base: Mapping[str, float] = attrs.field(factory=dict)
    intervals: Mapping[str, Interval] = attrs.field(factory=dict)
    base_intervals: Mapping[str, Interval] = attrs.field(factory=dict)
    confidence: float | None = None


@attrs.frozen(kw_only=True)
class Forgetting:
    """The loss on text that the training was not about: with the adapter, and of the base alone."""

    name: str
    loss: float
    base: float

    @property
    def perplexity(self) -> float:
        """By what part the perplexity has risen: 0.02 is 2%."""
        return math.expm1(min(self.loss - self.base, 700.0))


def with_result(evaluation: Mapping[str, Any], result: Mapping[str, Any]) -> dict[str, Any]:
    """The same evaluation with one result more, in the order of their names; an older one of that name is replaced."""
    held = evaluation.get("results")
    others = [one for one in held if _name(one) != result["name"]] if isinstance(held, list) else []
    return {**evaluation, "results": sorted([*others, dict(result)], key=lambda one: str(_name(one)))}


def results_of(evaluation: Mapping[str, Any]) -> tuple[Result, ...]:
    """The results, in their order."""
    held = evaluation.get("results")
    return tuple(
        _result(one) for one in (held if isinstance(held, list) else ()) if _name(one) and _scores(one, "scores")
    )


def forgetting_of(evaluation: Mapping[str, Any]) -> Forgetting | None:
    """What was forgotten; None when it was not measured."""
    held = evaluation.get("forgetting")
    if not isinstance(held, dict) or not all(_is_number(held.get(name)) for name in ("loss", "base")):
        return None
    return Forgetting(name=str(held.get("name", "")), loss=float(held["loss"]), base=float(held["base"]))


def is_lower_better(score: str) -> bool:
    """Whether less of a score is better: of losses and perplexities."""
    return score.endswith(("loss", "perplexity"))


def rounded(value: Any) -> Any:
    """Numbers to six digits, in mappings and sequences too; tuples become lists."""
    if isinstance(value, Mapping):
        return {str(name): rounded(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(one) for one in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def _result(held: Mapping[str, Any]) -> Result:
    rows, of, confidence = (held.get(name) for name in ("rows", "of", "confidence"))
    rows = rows if _is_count(rows) else None
    return Result(
        name=held["name"],
        digest=held["digest"] if isinstance(held.get("digest"), str) else "",
        rows=rows,
        of=of if _is_count(of) else rows,
        scores=_scores(held, "scores"),
        base=_scores(held, "base"),
        intervals=_intervals(held, "intervals"),
        base_intervals=_intervals(held, "base_intervals"),
        confidence=float(confidence) if _is_number(confidence) else None,  # type: ignore[arg-type]
    )


def _name(held: Any) -> str:
    name = held.get("name") if isinstance(held, dict) else None
    return name if isinstance(name, str) else ""


def _scores(held: Mapping[str, Any], name: str) -> dict[str, float]:
    found = held.get(name)
    return {one: float(value) for one, value in found.items() if _is_number(value)} if isinstance(found, dict) else {}


def _intervals(held: Mapping[str, Any], name: str) -> dict[str, Interval]:
    found = held.get(name)
    pairs = found.items() if isinstance(found, dict) else ()
    return {one: (float(pair[0]), float(pair[1])) for one, pair in pairs if _is_interval(pair)}


def _is_interval(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 2 and all(map(_is_number, value))


def _is_number(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= LARGEST


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and _is_number(value) and value >= 0
