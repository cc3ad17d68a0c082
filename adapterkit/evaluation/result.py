"""What an evaluation found."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from adapterkit.artifact.evaluated import rounded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adapterkit.data.dataset import Report, Unusable

    from .intervals import Interval
    from .samples import Sampled

__all__ = ["Evaluation", "plain"]


@attrs.frozen(eq=False, kw_only=True)
class Evaluation(Mapping[str, float]):
    """Scores by name.

    Attributes:
        scores: ``loss`` and ``perplexity`` per trained token, and what the metrics give: ``accuracy`` and more, each where
            the expected answers are such that it says something.
        rows: How many rows were scored.
        name: The file that they came from, without its folder; empty where they came from none.
        digest: The sha256 of all records of the data.
        adapter: The digest of what was scored; empty for the base alone.
        intervals: For each score, between what values it may well lie on all rows of the kind: ``(low, high)``.
        confidence: Of the intervals, such as 0.95.
        details: What metrics say besides, as JSON values: ``["f1"]["classes"]``, ``["f1"]["matrix"]``,
            ``["json_fields"]["fields"]``, ….
        prompts: What was asked, as people read it, for each row that expects an answer.
        predictions: The generated answers, in the same order.
        references: The expected answers, in the same order.
        answered: The numbers of these rows, counted from 0 among those that were scored.
        losses: For each row, the summed loss of its trained tokens.
        tokens: For each row, how many these are.
        unanswered: Rows that have no answer here though they expect one, and why.
        report: What became of the data's rows: how many were read, cut and left out.
        base: The base alone on the same rows; None when it was not asked for.
        sampled: The scores in a form in which they can be computed of other samples of the rows.
    """

    scores: Mapping[str, float]
    rows: int
    name: str = ""
    digest: str = ""
    adapter: str = ""
    intervals: Mapping[str, Interval] = attrs.field(factory=dict)
    confidence: float = 0.95
    details: Mapping[str, Mapping[str, Any]] = attrs.field(factory=dict, repr=False)
    prompts: Sequence[str] = attrs.field(default=(), repr=False)
    predictions: Sequence[str] = attrs.field(default=(), repr=False)
    references: Sequence[str] = attrs.field(default=(), repr=False)
    answered: Sequence[int] = attrs.field(default=(), repr=False)
    losses: Sequence[float] = attrs.field(default=(), repr=False)
    tokens: Sequence[int] = attrs.field(default=(), repr=False)
    unanswered: Sequence[Unusable] = attrs.field(default=(), repr=False)
    report: Report | None = attrs.field(default=None, repr=False)
    base: Evaluation | None = None
    sampled: Mapping[str, Sampled] = attrs.field(factory=dict, repr=False)

    def __getitem__(self, name: str) -> float:
        return self.scores[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.scores)

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def base_intervals(self) -> Mapping[str, Interval]:
        """The intervals of the base's scores; empty when it was not asked for."""
        return self.base.intervals if self.base is not None else {}

    def examples(self, most: int = 20) -> list[dict[str, Any]]:
        """Some rows to read: ``prompt``, ``expected``, ``adapter`` and ``base``, spread over the data.

        Rows that the adapter answers otherwise than the base come first.
        """
        alone = self.base.predictions if self.base is not None else [None] * len(self.predictions)
        order = sorted(range(len(self.predictions)), key=lambda row: self.predictions[row] == alone[row])
        differing = sum(mine != theirs for mine, theirs in zip(self.predictions, alone, strict=True))
        chosen = _spread(order[:differing], most)
        chosen += _spread(order[differing:], most - len(chosen))
        return [
            {
                "prompt": self.prompts[row],
                "expected": self.references[row],
                "adapter": self.predictions[row],
                "base": alone[row],
            }
            for row in chosen
        ]

    def summary(self, name: str) -> dict[str, Any]:
        """What a manifest keeps of it, under a name of the data: scores and intervals, the base's beside, and no answers."""
        alone = self.base
        found = {
            "name": name,
            "digest": self.digest,
            "rows": self.rows,
            "scores": dict(self.scores),
            "base": dict(alone.scores) if alone is not None else {},
            "intervals": dict(self.intervals),
            "base_intervals": dict(self.base_intervals),
            "confidence": self.confidence if self.intervals else None,
        }
        return {key: rounded(value) for key, value in found.items() if value not in ({}, "", None)}

    def to_json(self, *, answers: bool = False) -> dict[str, Any]:
        """All of it as JSON values; with ``answers``, every row's loss and answers too. What is no number is None."""
        alone = self.base
        values: dict[str, Any] = {
            "rows": self.rows,
            "answered": len(self.answered),
            "scores": plain(self.scores),
            "base": plain(alone.scores) if alone is not None else None,
            "confidence": self.confidence,
            "intervals": plain(self.intervals),
            "base_intervals": plain(self.base_intervals),
            "details": plain(self.details),
            "base_details": plain(alone.details) if alone is not None else None,
            "left_out": [
                attrs.asdict(one) for one in (*(self.report.unusable if self.report else ()), *self.unanswered)
            ],
            "truncated_rows": self.report.truncated_rows if self.report else 0,
        }
        return {**values, "answers": self._answers()} if answers else values

    def _answers(self) -> list[dict[str, Any]]:
        texts = {row: place for place, row in enumerate(self.answered)}
        rows = []
        for row, (loss, tokens) in enumerate(zip(self.losses, self.tokens, strict=True)):
            found: dict[str, Any] = {"row": row, "loss": plain(loss), "tokens": tokens}
            if self.base is not None:
                found["base_loss"] = plain(self.base.losses[row])
            if row in texts:
                place = texts[row]
                found |= {"prompt": self.prompts[place], "expected": self.references[place]}
                found["answer"] = self.predictions[place]
                if self.base is not None:
                    found["base_answer"] = self.base.predictions[place]
            rows.append(found)
        return rows


def plain(value: Any) -> Any:
    """Mappings and sequences as JSON has them; a number that JSON has none for is None."""
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _spread(rows: Sequence[int], most: int) -> list[int]:
    """At most so many of ``rows``, as far from each other as can be."""
    if len(rows) <= most:
        return list(rows)
    return [rows[number * len(rows) // most] for number in range(most)] if most > 0 else []
