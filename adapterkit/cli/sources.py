"""Data on the command line: files with weights, and what errors call options there."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from adapterkit.errors import ConfigError

from .options import check_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["on_command_line", "sources"]


def sources(data: str, also: Sequence[str] = ()) -> str | list[str] | dict[str, float]:
    """What ``FILE[=WEIGHT]`` and more of its kind are in Python: a path, a list of paths, or a mapping from path to weight.

    Raises:
        ConfigError: There is no such file, or it is named twice.
    """
    parts = [_weighted(word) for word in (data, *also)]
    paths = [path for path, _ in parts]
    for option, path in zip(("DATA", *["--also"] * len(also)), paths, strict=True):
        check_file(option, path)
    twice = sorted({path for path in paths if paths.count(path) > 1})
    if twice:
        raise ConfigError("DATA does not fit", [f"{path!r} is named twice; {path}=2 sees it twice" for path in twice])
    if any(weight is not None for _, weight in parts):
        return {path: 1.0 if weight is None else weight for path, weight in parts}
    return paths if also else data


def on_command_line(message: str) -> str:
    """A message with options as they are written here: ``columns={'prompt': 'text'}`` is ``--columns.prompt text``."""
    parts, rest = [], message
    while "columns={" in rest:
        before, _, rest = rest.partition("columns=")
        written = next(_options(rest), None)
        option, end = written or ("columns=", 0)
        parts += [before, option]
        rest = rest[end:]
    said = "".join([*parts, rest]).replace("columns= does not fit", "--columns does not fit")
    said = said.replace("go on with resume=True", "go on with --resume")
    return said.replace("give base=…", "give --base, or base_model in a recipe")


def _options(text: str) -> Iterator[tuple[str, int]]:
    """The mapping that ``text`` begins with, as options, and where it ends."""
    named = re.match(r"\{('[^']*'): …\}", text)
    if named:  # a name that is left open
        yield f"--columns.{ast.literal_eval(named.group(1))} …", named.end()
    for brace in re.finditer(r"\}", text):
        try:
            mapping: Mapping[str, str] = ast.literal_eval(text[: brace.end()])
        except (SyntaxError, ValueError):
            continue  # the brace of a name
        words = (f"--columns.{field} {shlex.quote(column)}" for field, column in mapping.items())
        yield " ".join(words), brace.end()


def _weighted(word: str) -> tuple[str, float | None]:
    """The path and the weight of ``FILE[=WEIGHT]``; a file may have an equals sign in its name."""
    path, sign, weight = word.rpartition("=")
    if not sign or Path(word).exists():
        return word, None
    try:
        return path, float(weight)
    except ValueError:
        return word, None
