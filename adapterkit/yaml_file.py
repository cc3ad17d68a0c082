"""YAML as people write it: safe, with the line of everything, and with nothing said twice."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml

from .errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Lines", "read_documents"]


class Lines(dict[str, Any]):
    """A mapping of a file, which knows where it stands there.

    Attributes:
        line: Where it begins, from 1 on.
        lines: Where each of its keys stands.
    """

    line: int
    lines: dict[Any, int]


class _Wrong(yaml.MarkedYAMLError):  # type: ignore[misc]
    """It is YAML, and yet not what is meant by it."""


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types
    """``3e-3`` is a number, as in YAML 1.2 and in JSON; PyYAML's own would read a text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _mapping(loader: Any, node: Any) -> Lines:
    made = Lines()
    made.line, made.lines = node.start_mark.line + 1, {}
    for key, _ in node.value:
        if key.value in made.lines:
            problem = f"{key.value!r} is said twice: in line {made.lines[key.value]} as well"
            raise _Wrong(problem=problem, problem_mark=key.start_mark)
        made.lines[str(key.value)] = key.start_mark.line + 1
    loader.flatten_mapping(node)  # what `<<` brings along comes first, so that the mapping's own words hold
    for key, value in node.value:
        name = loader.construct_object(key, deep=True)
        if not isinstance(name, str):
            raise _Wrong(problem=f"{name!r} is no name", problem_mark=key.start_mark)
        made.lines.setdefault(name, key.start_mark.line + 1)
        made[name] = loader.construct_object(value, deep=True)
    return made


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def read_documents(path: Path, what: str) -> list[Any]:
    """The documents of a YAML or JSON file; every mapping in them is a :class:`Lines`.

    Args:
        path: The file.
        what: How errors call it.

    Raises:
        ConfigError: It cannot be read, or is no YAML.
    """
    try:
        return list(yaml.load_all(path.read_text(encoding="utf-8"), _Loader))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{what} does not fit", [f"{path}: cannot be read ({error})"]) from error
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", error)
        where = f"{path}, line {mark.line + 1}" if mark is not None else f"{path}"
        said = problem if isinstance(error, _Wrong) else f"is neither YAML nor JSON: {problem}"
        raise ConfigError(f"{what} does not fit", [f"{where}: {said}"]) from error
