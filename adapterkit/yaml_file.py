"""YAML as people write it: small, with the line of everything, and with one meaning.

Words without quotes are read as in YAML 1.2 and JSON: ``null``, ``true``, ``false`` and decimal numbers, ``3e-3`` among them; all
else is a text, ``yes``, ``1:30`` and ``2001-01-01`` too. Aliases and tags are refused: they can make a short file endless.
"""

from __future__ import annotations

import math
import re
import reprlib
from typing import TYPE_CHECKING, Any

import yaml
from yaml.reader import ReaderError

from .artifact.files import read_bytes, true_path
from .errors import ArtifactError, ConfigError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Lines", "read_documents"]

MOST_BYTES = 1 << 20
MOST_DEPTH = 32
WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
WHOLE = re.compile(r"[-+]?[0-9]+")
NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


class Lines(dict[str, Any]):
    """A mapping of a file, which knows where it stands there.

    Attributes:
        line: Where it begins, from 1 on.
        lines: Where each of its keys stands.
    """

    line: int
    lines: dict[Any, int]


def read_documents(path: Path, what: str) -> list[Any]:
    """The documents of a YAML or JSON file of up to a megabyte; every mapping in them is a :class:`Lines`.

    Args:
        path: The file.
        what: How errors call it.

    Raises:
        ConfigError: It cannot be read, or is no YAML.
    """
    try:
        true = true_path(path)
        text = read_bytes(true.parent, true.name, MOST_BYTES).decode("utf-8")
    except (ArtifactError, OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{what} does not fit", [f"{str(path)!r:.200} cannot be read: {error}"]) from error
    try:
        return [_value(node) for node in yaml.compose_all(text, _Loader)]
    except (
        yaml.YAMLError,
        ValueError,
        OverflowError,
    ) as error:  # the last two: no character has the number of an escape
        raise ConfigError(f"{what} does not fit", [_problem(error, path, text)]) from error


class _Wrong(yaml.MarkedYAMLError):  # type: ignore[misc]  # PyYAML has no types
    """It is YAML, and yet not what is meant by it."""


class _Loader(yaml.BaseLoader):  # type: ignore[misc]
    """Nodes without aliases and tags, nested a little."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise _Wrong(problem=f"*{event.anchor}: aliases are not read; write it out", problem_mark=event.start_mark)
        if event.tag is not None:
            raise _Wrong(problem=f"tags such as {event.tag!r:.80} are not read", problem_mark=event.start_mark)
        if self.depth == MOST_DEPTH:
            raise _Wrong(problem="is nested too deeply", problem_mark=event.start_mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _value(node: Any) -> Any:
    if isinstance(node, yaml.MappingNode):
        return _mapping(node)
    if isinstance(node, yaml.SequenceNode):
        return [_value(one) for one in node.value]
    return _text(node) if node.style else _plain(node)


def _mapping(node: Any) -> Lines:
    made = Lines()
    made.line, made.lines = node.start_mark.line + 1, {}
    for key, value in node.value:
        name = _value(key)
        if not isinstance(name, str):
            raise _Wrong(problem=f"{reprlib.repr(name):.80} is no name", problem_mark=key.start_mark)
        if name in made:
            problem = f"{name!r:.80} is said twice: in line {made.lines[name]} as well"
            raise _Wrong(problem=problem, problem_mark=key.start_mark)
        made.lines[name] = key.start_mark.line + 1
        made[name] = _value(value)
    return made


def _plain(node: Any) -> Any:
    """What a word without quotes means."""
    if node.value in WORDS:
        return WORDS[node.value]
    if not NUMBER.fullmatch(node.value):
        return _text(node)
    if math.isinf(float(node.value)):
        raise _Wrong(problem=f"the number {node.value:.40} is too large", problem_mark=node.start_mark)
    return int(node.value) if WHOLE.fullmatch(node.value) else float(node.value)


def _text(node: Any) -> str:
    """A text; JSON writes characters such as emoji as two escapes, of which each alone is none."""
    try:
        text: str = node.value.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        raise _Wrong(problem=f"{node.value!r:.80} holds half a character", problem_mark=node.start_mark) from None
    return text


def _problem(error: Exception, path: Path, text: str) -> str:
    """What is wrong, and in which line, as far as that is known."""
    if isinstance(error, _Wrong):
        return f"{path}, line {error.problem_mark.line + 1}: {error.problem}"
    where, said = f"{path}", str(error)
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        where, said = f"{path}, line {error.problem_mark.line + 1}", error.problem
    elif isinstance(error, ReaderError):
        line = text.count("\n", 0, error.position) + 1
        where, said = f"{path}, line {line}", f"the character {error.character!r} cannot stand there"
    return f"{where}: is neither YAML nor JSON: {said}"
