"""The rows of a run: what it learns from, and what it is measured on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

import attrs

from adapterkit.data.dataset import encode_rows
from adapterkit.evaluation.reporting import say_what_was_lost

if TYPE_CHECKING:
    from adapterkit.contracts import Example, Record
    from adapterkit.data.dataset import Report
    from adapterkit.data.mixture import Mixture
    from adapterkit.data.rendering import Renderer
    from adapterkit.registry import Registry

__all__ = ["After", "TrainingRows", "read_rows_of"]


@attrs.frozen(kw_only=True)
class TrainingRows:
    """What a run learns from, and what it is measured on."""

    examples: Sequence[Example]
    held_out: Sequence[Example] = ()
    held_out_records: Sequence[Record] = ()
    mixture: Mixture | None = None
    report: Report
    digest: str
    held_out_report: Report | None = None
    held_out_digest: str = ""

    def place(self, row: int) -> str:
        return f"row {row}"

    def summary(self) -> dict[str, Any]:
        return {
            "data": _summary(self.report, self.digest),
            "eval_data": _summary(self.held_out_report, self.held_out_digest) if self.held_out_report else None,
            "replay": None,
        }


def _summary(report: Report, digest: str) -> dict[str, Any]:
    counts = attrs.asdict(report, filter=attrs.filters.exclude("unusable"))
    return {"digest": digest, **counts, "unusable_rows": len(report.unusable)}


def read_rows_of(
    data: Any,
    renderer: Renderer,
    registry: Registry,
    *,
    seed: int,
    eval_data: Any = None,
    columns: Any = None,
    format: str | None = None,
) -> TrainingRows:
    rows = encode_rows(data, renderer, registry, columns=columns, format=format)
    held = encode_rows(eval_data, renderer, registry, columns=columns, format=format) if eval_data is not None else None
    say_what_was_lost(rows.report)
    return TrainingRows(
        examples=rows.examples,
        held_out=held.examples if held else (),
        held_out_records=held.records if held else (),
        report=rows.report,
        digest=rows.digest,
        held_out_report=held.report if held else None,
        held_out_digest=held.digest if held else "",
    )


@attrs.frozen
class After(Sequence["Example"]):
    """Examples after so many tokens of their own, made when they are asked for: there may be millions of them."""

    examples: Sequence[Example]
    tokens: Sequence[int]

    def __len__(self) -> int:
        return len(self.examples)

    @overload
    def __getitem__(self, index: int) -> Example: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Example]: ...

    def __getitem__(self, index: int | slice) -> Example | Sequence[Example]:
        if isinstance(index, slice):
            return [one.after(self.tokens) for one in self.examples[index]]
        return self.examples[index].after(self.tokens)
