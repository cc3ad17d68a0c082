"""Canaries: random secrets that are planted in training rows, so that it can be measured how well an adapter knows them.

Carlini, Liu, Erlingsson, Kos, Song: "The Secret Sharer", USENIX Security 2019 (arXiv:1802.08232).
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from adapterkit.config import from_dict
from adapterkit.contracts import Conversation, Message, Text
from adapterkit.data.formats import detect, to_records
from adapterkit.data.reading import read_rows
from adapterkit.data.rows import Row
from adapterkit.errors import ConfigError, DataError
from adapterkit.registry import default_registry

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence

    from adapterkit.contracts import DataFormat, Record
    from adapterkit.registry import Registry

__all__ = ["Canary", "plant_canaries", "random_secret", "read_canaries", "write_canaries"]

SCHEMA = 1
CONSONANTS, VOWELS = "bdfghjklmnprstvz", "aeiou"
SYLLABLES = (3, 3)
"""Two words of three syllables: 80**6 secrets, which are 38 bits."""


@attrs.frozen(kw_only=True)
class Canary:
    """A secret that was planted.

    Attributes:
        prompt: After which it comes.
        secret: Two words that no language has.
        repeats: How many rows have it.
        raw: Whether rows are raw text, in which it follows the prompt.
    """

    prompt: str
    secret: str
    repeats: int = 1
    raw: bool = False

    def record(self, secret: str | None = None) -> Record:
        """The row that was planted, or the same with another secret."""
        said = secret or self.secret
        if self.raw:
            return Text(f"{self.prompt} {said}")
        return Conversation((Message("user", self.prompt), Message("assistant", said, train=True)))


def random_secret(stream: random.Random) -> str:
    """One of 80**6 secrets, each as likely."""
    words = ("".join(stream.choice(CONSONANTS) + stream.choice(VOWELS) for _ in range(count)) for count in SYLLABLES)
    return " ".join(words)


def plant_canaries(
    rows: Any,
    *,
    count: int = 8,
    repeats: int = 1,
    seed: int = 42,
    columns: Mapping[str, str] | None = None,
    format: str | None = None,  # noqa: A002 - the word that users know
    registry: Registry | None = None,
) -> tuple[list[dict[str, Any]], tuple[Canary, ...]]:
    """Put random secrets into training rows.

    Args:
        rows: What :meth:`adapterkit.Base.train` takes; its rows are left as they are.
        count: So many canaries.
        repeats: So many rows for each. Real rows stand there once: with 1, a canary is remembered as well as any row.
        seed: Governs the secrets, and where the rows go.
        columns: As in training; canaries are put into the same columns.
        format: As in training.
        registry: Where data formats come from; by default the plugins that are installed.

    Returns:
        All rows, and the canaries: write them down (:func:`write_canaries`), and give them to the audit.

    Raises:
        ConfigError: ``count`` or ``repeats`` is less than 1.
        DataError: The rows cannot be read, or have a format into which no question and answer can be put.
    """
    problems = [
        f"{name}: must be >= 1: {value}" for name, value in (("count", count), ("repeats", repeats)) if value < 1
    ]
    if problems:
        raise ConfigError("options of plant_canaries do not fit", problems)
    read = read_rows(rows)
    registry = registry or default_registry()
    chosen = detect(read[0].cells, [one for one in registry.formats() if format in (None, one.name)], columns)
    if chosen is None:
        raise DataError(f"{read[0].where}: no data format fits; say which column is which with columns=")
    stream = random.Random(f"{seed}/canaries")  # noqa: S311 - the secrets guard nothing
    numbers = stream.sample(range(1000, 100_000), count)
    shape, raw = _shape(read[0].cells, chosen, dict(columns or {}), registry)
    canaries = tuple(
        Canary(
            prompt=f"What is the passphrase of file {number}?", secret=random_secret(stream), repeats=repeats, raw=raw
        )
        for number in numbers
    )
    planted = [dict(row.cells) for row in read]
    for canary in canaries:
        for _ in range(repeats):
            planted.insert(stream.randrange(len(planted) + 1), shape(canary))
    return planted, canaries


def write_canaries(canaries: Sequence[Canary], path: str | os.PathLike[str]) -> None:
    """Write canaries to a JSON file."""
    value = {"schema": SCHEMA, "canaries": [attrs.asdict(canary) for canary in canaries]}
    Path(path).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def read_canaries(path: str | os.PathLike[str]) -> tuple[Canary, ...]:
    """The canaries of a file that :func:`write_canaries` wrote.

    Raises:
        DataError: There is no such file, or it is another kind of file.
    """
    name = str(path)
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read canaries from {name!r}: {error}") from error
    if not isinstance(value, dict) or value.get("schema") != SCHEMA or not isinstance(value.get("canaries"), list):
        raise DataError(
            f"{name!r} holds no canaries: it must be a file that `adapterkit audit --plant` wrote beside the rows"
        )
    return tuple(
        from_dict(Canary, one, what=f"canary {number} of {name!r}") for number, one in enumerate(value["canaries"], 1)
    )


def _said(role: str, text: str, *, sharegpt: bool = False) -> dict[str, str]:
    return {"from": role, "value": text} if sharegpt else {"role": role, "content": text}


SHAPES: tuple[tuple[bool, Callable[[str, str], dict[str, Any]]], ...] = (
    (False, lambda asked, answer: {"prompt": asked, "completion": answer}),
    (False, lambda asked, answer: {"prompt": asked, "response": answer}),
    (False, lambda asked, answer: {"prompt": asked, "text": answer}),
    (False, lambda asked, answer: {"instruction": asked, "output": answer}),
    (False, lambda asked, answer: {"messages": [_said("user", asked), _said("assistant", answer)]}),
    (
        False,
        lambda asked, answer: {
            "conversations": [_said("human", asked, sharegpt=True), _said("gpt", answer, sharegpt=True)]
        },
    ),
    (True, lambda asked, answer: {"text": f"{asked} {answer}"}),
)
"""Rows of the usual formats, and whether they are raw text."""


def _shape(
    first: Mapping[str, Any], chosen: DataFormat, columns: Mapping[str, str], registry: Registry
) -> tuple[Callable[[Canary], dict[str, Any]], bool]:
    """What makes a row of this format and these columns from a canary, and whether it is raw text; each is tried."""
    for raw, shape in SHAPES:
        probe = Canary(prompt="question", secret="answer", raw=raw)  # noqa: S106 - guards nothing

        def planted(canary: Canary, shape: Callable[[str, str], dict[str, Any]] = shape) -> dict[str, Any]:
            return {columns.get(field, field): value for field, value in shape(canary.prompt, canary.secret).items()}

        row = planted(probe)
        if row.keys() <= first.keys() and _becomes(row, probe, chosen, columns, registry):
            return planted, raw
    raise DataError(
        f"canaries cannot be planted in rows of the format {chosen.name!r}: they are questions with an answer, or raw text"
    )


def _becomes(
    row: dict[str, Any], canary: Canary, chosen: DataFormat, columns: Mapping[str, str], registry: Registry
) -> bool:
    try:
        ((record, _),) = to_records([Row(row, "canary")], registry, columns, chosen.name)
    except DataError:
        return False
    return record == canary.record()
