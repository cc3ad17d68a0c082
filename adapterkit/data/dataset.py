"""From a source of rows to encoded examples, with a report of what became of every row."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import attrs

from adapterkit.config import canonical_json
from adapterkit.contracts import Conversation, Example, Message
from adapterkit.errors import DataError

from .formats import list_problems, to_records
from .reading import read_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from adapterkit.contracts import Record
    from adapterkit.registry import Registry

    from .rendering import Renderer

__all__ = ["Encoded", "Report", "Unusable", "answers", "digest", "encode_rows"]


@attrs.frozen
class Unusable:
    """A row that was left out: where it is and why."""

    where: str
    reason: str


@attrs.frozen
class Report:
    """What became of the rows.

    Attributes:
        rows: How many were read.
        tokens: In all examples together.
        trained_tokens: Those that count in the loss.
        truncated_rows: How many were longer than ``max_length``.
        truncated_tokens: How many tokens these lost.
        unusable: The rows that were left out.
    """

    rows: int
    tokens: int
    trained_tokens: int
    truncated_rows: int
    truncated_tokens: int
    unusable: tuple[Unusable, ...] = ()


@attrs.frozen
class Encoded:
    """Encoded rows.

    Attributes:
        examples: One for each usable row, in order.
        records: What each example was made of.
        digest: The sha256 of all records, left out or not: the same data has the same digest in any file type or
        format. report: What became of the rows.
    """

    examples: list[Example]
    records: list[Record]
    digest: str
    report: Report


def encode_rows(
    source: Any,
    renderer: Renderer,
    registry: Registry,
    columns: Mapping[str, str] | None = None,
    format: str | None = None,  # noqa: A002 - the word that users know
) -> Encoded:
    """Read, convert and encode ``source``.

    Args:
        source: What :func:`~adapterkit.data.reading.read_rows` takes.
        renderer: Of the base's tokenizer.
        registry: Where data formats come from.
        columns: The data's column for each field of the format.
        format: The name of the format, when the first row would not tell.

    Raises:
        DataError: The source cannot be read, rows do not have the format, or none of them can be encoded. Rows that
            only this tokenizer or ``max_length`` cannot use are left out and listed in the report.
    """
    placed = to_records(read_rows(source), registry, columns, format)
    encoded = renderer.encode_all(record for record, _ in placed)
    unusable = tuple(
        Unusable(where, str(one)) for one, (_, where) in zip(encoded, placed, strict=True) if isinstance(one, DataError)
    )
    if len(unusable) == len(placed):
        problems = [f"{one.where}: {one.reason}" for one in unusable]
        raise DataError(list_problems(f"none of {len(placed)} rows can be encoded", problems))
    pairs = [(one, record) for one, (record, _) in zip(encoded, placed, strict=True) if isinstance(one, Example)]
    examples = [example for example, _ in pairs]
    return Encoded(
        examples,
        [record for _, record in pairs],
        digest(r for r, _ in placed),
        _report(examples, len(placed), unusable),
    )


def digest(records: Iterable[Record]) -> str:
    """The sha256 of the records in order, each as a line of canonical JSON."""
    total = hashlib.sha256()
    for record in records:
        total.update(canonical_json(attrs.asdict(record)).encode() + b"\n")
    return total.hexdigest()


def answers(records: Iterable[Record]) -> tuple[list[tuple[Message, ...]], list[str]]:
    """Prompts and expected answers: each record's last turn of the assistant is expected after the turns before it.

    Raises:
        DataError: A record is raw text, or nobody answers in it.
    """
    prompts, references = [], []
    for number, record in enumerate(records, 1):
        messages = record.messages if isinstance(record, Conversation) else ()
        last = max((index for index, message in enumerate(messages) if message.role == "assistant"), default=None)
        if last is None:
            raise DataError(f"record {number} expects no answer: only prompts with completions can be scored")
        prompts.append(messages[:last])
        references.append(messages[last].content)
    return prompts, references


def _report(examples: list[Example], rows: int, unusable: tuple[Unusable, ...]) -> Report:
    return Report(
        rows=rows,
        tokens=sum(len(example.input_ids) for example in examples),
        trained_tokens=sum(example.trained for example in examples),
        truncated_rows=sum(example.truncated > 0 for example in examples),
        truncated_tokens=sum(example.truncated for example in examples),
        unusable=unusable,
    )
