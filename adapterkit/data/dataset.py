"""From a source of rows to encoded examples, with a report of what became of every row."""

from __future__ import annotations

from array import array
from functools import cached_property
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from adapterkit.contracts import Conversation, Example, Message, Preference
from adapterkit.errors import DataError

from .examples import ExamplesBuilder
from .formats import applies, iter_records, list_problems
from .progress import progress
from .reading import iter_rows
from .records import RecordsBuilder, digest, digest_of_lines
from .reports import Report, Unusable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from adapterkit.contracts import Record
    from adapterkit.registry import Registry

    from .examples import Examples
    from .records import Records
    from .rendering import Renderer

__all__ = ["Collector", "Encoded", "Part", "Report", "Unusable", "answers", "digest", "encode_rows", "last_answer"]

AT_ONCE = 1000
"""Rows that are encoded together."""


@attrs.frozen
class Encoded:
    """Encoded rows.

    Attributes:
        examples: One for each usable row, in order.
        records: What each example was made of.
        digest: The sha256 of all records, left out or not: the same data has the same digest in any file type or format.
        report: What became of the rows.
    """

    examples: Examples
    records: Records
    digest: str
    report: Report


def encode_rows(
    source: Any,
    renderer: Renderer,
    registry: Registry,
    columns: Mapping[str, str] | None = None,
    format: str | None = None,  # noqa: A002 - the word that users know
) -> Encoded:
    """Read, convert and encode ``source``, a thousand rows at a time.

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
    collector = Collector(renderer, registry)
    return collector.encoded([collector.add(source, columns, format)])


@attrs.frozen
class Part:
    """The rows of one source within all that a collector holds.

    Attributes:
        rows: The numbers of its records, left out or not.
        usable: The numbers of its examples.
        unusable: Those that were left out.
    """

    rows: range
    usable: range
    unusable: tuple[Unusable, ...]


class Collector:
    """Encodes one source after the other; all their examples are one long row of numbers.

    Sources are added first, and then looked at: no source may be added once anything else has been called.
    """

    def __init__(self, renderer: Renderer, registry: Registry) -> None:
        self._renderer, self._registry = renderer, registry
        self._building, self._recording = ExamplesBuilder(), RecordsBuilder()
        self._record_of = array("q")

    def add(
        self,
        source: Any,
        columns: Mapping[str, str] | None = None,
        format: str | None = None,  # noqa: A002 - the word that users know
        *,
        where_they_apply: bool = False,
    ) -> Part:
        """Read and encode a source; see :func:`encode_rows`.

        Args:
            source: The rows.
            columns: The source's column for each field.
            format: The name of its format.
            where_they_apply: Leave out ``columns`` and ``format`` for a source whose first row they do not fit at all.
        """
        first, begun = len(self._recording), len(self._building)
        unusable: list[Unusable] = []
        with progress(f"reading {_name(source)}") as state:
            rows = iter_rows(source, state.tell)
            named: tuple[Mapping[str, str] | None, str | None] = (columns, format)
            if where_they_apply:
                head = next(rows)
                rows = chain([head], rows)
                named = named if applies(head.cells, self._registry, *named) else (None, None)
            records = iter_records(rows, self._registry, *named)
            while chunk := list(islice(records, AT_ONCE)):
                unusable += self._encode(chunk)
                state.count(len(chunk))
        if len(self._building) == begun:
            problems = [f"{one.where}: {one.reason}" for one in unusable]
            raise DataError(list_problems(f"none of {len(unusable)} rows can be encoded", problems))
        return Part(range(first, len(self._recording)), range(begun, len(self._building)), tuple(unusable))

    @cached_property
    def examples(self) -> Examples:
        """All examples."""
        return self._building.finish()

    def encoded(self, parts: Sequence[Part], without: Sequence[int] = ()) -> Encoded:
        """The rows of some sources, but for the examples of these numbers."""
        gone = np.asarray(without, np.int64)
        numbers = np.concatenate([np.arange(part.usable.start, part.usable.stop) for part in parts])
        rows = np.concatenate([np.arange(part.rows.start, part.rows.stop) for part in parts])
        kept = np.setdiff1d(numbers, gone, assume_unique=True)
        left = np.setdiff1d(rows, np.asarray(self._record_of)[gone], assume_unique=True)
        return self._part(kept, left, tuple(row for part in parts for row in part.unusable))

    def only(self, numbers: Sequence[int]) -> Encoded:
        """The examples of these numbers."""
        chosen = np.asarray(numbers, np.int64)
        return self._part(chosen, np.asarray(self._record_of)[chosen], ())

    @cached_property
    def _records(self) -> Records:
        return self._recording.finish()

    def _part(self, numbers: NDArray[np.int64], rows: NDArray[np.int64], unusable: tuple[Unusable, ...]) -> Encoded:
        examples = self.examples.pick(numbers)
        return Encoded(
            examples,
            self._records.pick(np.asarray(self._record_of)[numbers]),
            digest_of_lines(self._records.pick(rows).lines()),
            _report(examples, len(rows), unusable),
        )

    def _encode(self, chunk: Sequence[tuple[Record, str]]) -> list[Unusable]:
        first = len(self._recording)
        for record, where in chunk:
            try:
                self._recording.add(record)
            except DataError as error:
                raise DataError(f"{where}: {error}") from error
        encoded = self._renderer.encode_all([record for record, _ in chunk])
        self._building.extend(one for one in encoded if isinstance(one, Example))
        self._record_of.extend(first + number for number, one in enumerate(encoded) if isinstance(one, Example))
        pairs = zip(encoded, chunk, strict=True)
        return [Unusable(where, str(one)) for one, (_, where) in pairs if isinstance(one, DataError)]


def answers(
    records: Iterable[Record], renderer: Renderer | None = None
) -> tuple[list[tuple[Message, ...] | Conversation], list[str]]:
    """Prompts and expected answers: each record's last turn of the assistant is expected after the turns before it.

    A prompt with tools is a :class:`~adapterkit.Conversation`. Of a preference, the chosen answer is expected.

    Raises:
        DataError: A record is raw text, or nobody answers in it; or it answers by calling a tool and there is no ``renderer``,
            which alone knows how a call is written.
    """
    prompts: list[tuple[Message, ...] | Conversation] = []
    references = []
    for number, record in enumerate(records, 1):
        talk = _conversation(record)
        last = last_answer(talk.messages)
        if last is None:
            raise DataError(f"record {number} expects no answer: only prompts with completions can be scored")
        asked = talk.messages[:last]
        prompts.append(Conversation(asked, talk.tools) if talk.tools else asked)
        if not talk.messages[last].tool_calls:
            references.append(talk.messages[last].content)
        elif renderer is None:
            raise DataError(
                f"record {number} answers by calling a tool: answers() needs the renderer to write the call"
            )
        else:
            references.append(renderer.answer(talk))
    return prompts, references


def last_answer(messages: Sequence[Message]) -> int | None:
    """The place of the assistant's last turn; None when it never speaks."""
    return max((index for index, one in enumerate(messages) if one.role == "assistant"), default=None)


def _conversation(record: Record) -> Conversation:
    if isinstance(record, Preference):
        return Conversation((*record.prompt, *record.chosen), record.tools)
    return record if isinstance(record, Conversation) else Conversation(())


def _name(source: Any) -> str:
    text = str(source) if isinstance(source, str) or hasattr(source, "__fspath__") else type(source).__name__
    return text.replace("\\", "/").rpartition("/")[2]


def _report(examples: Examples, rows: int, unusable: tuple[Unusable, ...]) -> Report:
    truncated = examples.truncated
    return Report(
        rows=rows,
        tokens=sum(examples.lengths),
        trained_tokens=examples.trained_tokens,
        truncated_rows=sum(count > 0 for count in truncated),
        truncated_tokens=sum(truncated),
        unusable=unusable,
    )
