"""What must not leave the house: what a card lacks, and keys and tokens in whatever would be sent."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING

from adapterkit.credentials import NEWER, Secrets
from adapterkit.errors import PublishError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping
    from pathlib import Path

__all__ = ["check_fit"]

TOLD = {"evaluation": "unevaluated", "license": "unlicensed"}
"""What lets something through that a card lacks."""
MOST_PROSE = 1 << 20
"""Bytes of a text that is looked through line by line; larger ones are vocabularies, in which many a line looks like anything."""
MOST_TEXT = 128 << 20
LENGTH_BYTES = 8
WEIGHTS = ".safetensors"
SECRET_NAME = re.compile(r"(TOKEN|SECRET|PASSWORD|API_KEY|ACCESS_KEY)$")
SHORTEST = 12


def check_fit(
    what: str, lacks: Iterable[str], files: Mapping[str, Path], allowed: Collection[str], said: Mapping[str, str]
) -> None:
    """Refuse to publish what is not complete, or tells too much.

    Args:
        what: What it is called in the error.
        lacks: What its card lacks, a line each, each beginning with a word and a colon.
        files: What would be sent, by name.
        allowed: Words of what may be lacking.
        said: What would be said beside, such as the commit's message, by what it is called.

    Raises:
        PublishError: All that is wrong.
    """
    problems = []
    for line in lacks:
        word = line.partition(":")[0]
        if word not in allowed:
            problems.append(f"{line}; or {TOLD[word]}=True" if word in TOLD else line)
    problems += _secrets(files, said)
    if problems:
        raise PublishError(f"{what} is not published", problems)


def _secrets(files: Mapping[str, Path], said: Mapping[str, str]) -> Iterator[str]:
    """A line for each secret; the secret itself is not shown."""
    finder = Secrets()
    for name, text in said.items():
        for kind in _kinds(finder, text, line_by_line=True):
            yield f"{name} holds what looks like a secret ({kind}): say it without"
    for name, path in sorted(files.items()):
        text = _text(path)
        for kind in sorted(set(_kinds(finder, text, line_by_line=len(text) <= MOST_PROSE))):
            yield f"{name} holds what looks like a secret ({kind}): take it out of what made it"


def _kinds(finder: Secrets, text: str, *, line_by_line: bool) -> Iterator[str]:
    text = text.replace("\\", "")  # Markdown writes an underscore as \\_, JSON a slash as \\/
    for variable, value in os.environ.items():
        if SECRET_NAME.search(variable.upper()) and len(value) >= SHORTEST and value in text:
            yield f"the value of ${variable}"
    if line_by_line:
        for line in text.splitlines():
            yield from (match.kind for match in finder.find(line))
    else:
        yield from (kind for kind, form in NEWER.items() if form.search(text))


def _text(path: Path) -> str:
    """What is text in a file: of weights, what their header says beside the tensors; else all of it."""
    with path.open("rb") as file:
        if path.suffix != WEIGHTS:
            return file.read(MOST_TEXT).decode("utf-8", "replace")
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
        header = json.loads(file.read(min(length, MOST_TEXT)))
        return json.dumps(header.get("__metadata__", {}), ensure_ascii=False)
