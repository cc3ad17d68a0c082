"""What must not leave the house: keys and tokens, and files that belong to no adapter and no model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapterkit.credentials import Secrets
from adapterkit.errors import PublishError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping
    from pathlib import Path

__all__ = ["check_fit"]

TOLD = {"evaluation": "unevaluated", "license": "unlicensed"}
"""What lets something through that a card lacks."""

TEXTS = (".json", ".jinja", ".md", ".txt", ".sig", "")
VOCABULARIES = {"tokenizer.json", "vocab.json", "vocab.txt", "merges.txt", "model.safetensors.index.json"}
"""Megabytes of pieces of words, some of which look like anything."""
MOST = 1 << 20


def check_fit(what: str, lacks: Iterable[str], files: Mapping[str, Path], allowed: Collection[str]) -> None:
    """Refuse to publish what is not complete, or tells too much.

    Args:
        what: What it is called in the error.
        lacks: What its card lacks, a line each, each beginning with a word and a colon.
        files: What would be sent, by name.
        allowed: Words of what may be lacking.

    Raises:
        PublishError: All that is wrong.
    """
    problems = []
    for line in lacks:
        word = line.partition(":")[0]
        if word not in allowed:
            problems.append(f"{line}; or {TOLD[word]}=True" if word in TOLD else line)
    problems += secrets_in(files)
    if problems:
        raise PublishError(f"{what} is not published", problems)


def secrets_in(files: Mapping[str, Path]) -> Iterator[str]:
    """A line for each secret in the files that are text; the secret itself is not shown."""
    finder = Secrets()
    for name, path in sorted(files.items()):
        if path.suffix not in TEXTS or name in VOCABULARIES or path.stat().st_size > MOST:
            continue
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        for number, line in enumerate(lines, 1):
            for match in finder.find(line.replace("\\", "")):  # Markdown writes an underscore as \\_
                yield f"{name}, line {number}, holds what looks like a secret ({match.kind}): take it out of what made it"
