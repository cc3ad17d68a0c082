"""Rows as an audit sees them: what is asked, what is answered, and where they stand."""

from __future__ import annotations

import os
import re
from itertools import islice
from typing import TYPE_CHECKING, Any

import attrs

from adapterkit.contracts import Conversation, Preference
from adapterkit.data.formats import applies, detect, to_records
from adapterkit.data.progress import progress
from adapterkit.data.reading import iter_rows
from adapterkit.data.reports import Unusable
from adapterkit.data.rows import Row
from adapterkit.data.training import sources_of
from adapterkit.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from adapterkit.contracts import Message, Record
    from adapterkit.registry import Registry

__all__ = ["Item", "Items", "load", "normalised", "source_name"]

_TOGETHER = 1000
_SPACE = re.compile(r"\s+")


@attrs.frozen(slots=True)
class Item:
    """A row.

    Attributes:
        where: Its place, as the reader names it.
        prompt: What stands before the last trained turn, turn by turn; empty for raw text.
        completion: The last trained turn; all of a raw text.
        rest: What stands elsewhere: turns after it, a rejected answer, tools.
        record: What the row became.
    """

    where: str
    prompt: str
    completion: str
    rest: str
    record: Record = attrs.field(repr=False)

    @property
    def text(self) -> str:
        """All of it."""
        return "\n".join(filter(None, (self.prompt, self.completion, self.rest)))


@attrs.frozen
class Items:
    """All rows of a source.

    Attributes:
        usable: Those that have the format.
        unusable: The others, each with its reason.
    """

    usable: list[Item]
    unusable: list[Unusable]

    def __len__(self) -> int:
        return len(self.usable) + len(self.unusable)


def load(
    source: Any,
    registry: Registry,
    columns: Mapping[str, str] | None = None,
    format: str | None = None,  # noqa: A002 - the word that users know
) -> Items:
    """The rows of ``source``; one that does not have the format is listed, and stops nothing.

    Raises:
        DataError: The source cannot be read, or no format fits its first row.
    """
    items = Items([], [])
    sources = sources_of(source)
    for one in sources:
        _load(one.data, registry, columns, format, items, loose=len(sources) > 1)
    return items


def source_name(source: Any) -> str:
    """What reports call the data; folders are left out, as they are nobody's business."""
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source).replace("\\", "/").rstrip("/").rpartition("/")[2]
    named = [one.data for one in sources_of(source) if isinstance(one.data, (str, os.PathLike))]
    return ", ".join(map(source_name, named)) or f"a {type(source).__name__}"


def normalised(text: str) -> str:
    """A text as people compare them: white space and case aside."""
    return _SPACE.sub(" ", text).strip().casefold()


def _load(
    source: Any,
    registry: Registry,
    columns: Mapping[str, str] | None,
    name: str | None,
    items: Items,
    *,
    loose: bool,
) -> None:
    with progress(f"reading {source_name(source)}") as state:
        rows = iter_rows(source, state.tell)
        chunk = list(islice(rows, _TOGETHER))
        if loose and not applies(chunk[0].cells, registry, columns, name):
            columns = name = None
        if name is None:
            chosen = detect(chunk[0].cells, registry.formats(), columns)
            if chosen is None:
                to_records(chunk, registry, columns)  # raises, and says what would have worked
                raise DataError(f"{chunk[0].where}: no data format fits")
            name = chosen.name
        wanted = (columns or {}).values()
        if not set(wanted) <= {column for row in chunk for column in row.cells}:
            to_records(chunk, registry, columns, name)  # raises: such a column there is not
        first, usable = chunk, len(items.usable)
        blank = dict.fromkeys(wanted)  # what a later row may lack, as any row may
        while chunk:
            _convert([Row({**blank, **row.cells}, row.where) for row in chunk], registry, columns, name, items)
            state.count(len(chunk))
            chunk = list(islice(rows, _TOGETHER))
    if len(items.usable) == usable:
        to_records(first, registry, columns, name)  # raises likewise: there is nothing to look through


def _convert(
    rows: Sequence[Row], registry: Registry, columns: Mapping[str, str] | None, name: str, items: Items
) -> None:
    """Add rows, all at once where all are usable, else one by one."""
    try:
        items.usable.extend([_item(record, where) for record, where in to_records(rows, registry, columns, name)])
    except DataError as error:
        if len(rows) == 1:
            items.unusable.append(Unusable(rows[0].where, _reason(error, rows[0].where)))
            return
        for row in rows:
            _convert([row], registry, columns, name, items)


def _reason(error: DataError, where: str) -> str:
    """What is wrong with the one row that an error is about."""
    text = str(error).partition("\n  - ")[2] or str(error)
    return text.partition("\nSay which column")[0].removeprefix(f"{where}: ")


def _item(record: Record, where: str) -> Item:
    if isinstance(record, Preference):
        rejected = "\n".join(map(_said, record.rejected))
        return _turns(
            where, (*record.prompt, *record.chosen), "\n".join(filter(None, (rejected, record.tools))), record
        )
    if isinstance(record, Conversation):
        return _turns(where, record.messages, record.tools, record)
    return Item(where, "", record.text, "", record)


def _turns(where: str, messages: Sequence[Message], rest: str, record: Record) -> Item:
    last = max((place for place, message in enumerate(messages) if message.train), default=len(messages) - 1)
    after = "\n".join(filter(None, (*map(_said, messages[last + 1 :]), rest)))
    return Item(where, "\n".join(map(_said, messages[:last])), _said(messages[last]), after, record)


def _said(message: Message) -> str:
    return "\n".join(filter(None, (message.content, message.tool_calls)))
