"""Turns a configuration class into command-line options, and what was given into options for Python."""

from __future__ import annotations

import ast
import inspect
import textwrap
import types
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin, get_type_hints

import attrs
from cyclopts import Parameter

from adapterkit.data.reading import explain_missing
from adapterkit.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["check_file", "field_docs", "given", "parameters", "with_options"]


def parameters(cls: type, defaults: Mapping[str, Any] | None = None) -> list[inspect.Parameter]:
    """One keyword-only parameter for each field of ``cls``; None says that it was not given, so that Python's defaults hold."""
    docs, hints = field_docs(cls), get_type_hints(cls)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=_annotation(
                hints[field.name], docs.get(field.name, ""), (defaults or {}).get(field.name, _default(field))
            ),
        )
        for field in attrs.fields(cls)
    ]


def with_options(command: Callable[..., None], cls: type) -> Callable[..., None]:
    """A command whose ``**options`` are the fields of ``cls``, each with its help."""

    def run(*arguments: Any, **options: Any) -> None:
        command(*arguments, **options)

    hints = get_type_hints(command, include_extras=True)
    own = [
        one.replace(annotation=hints[one.name])
        for one in inspect.signature(command).parameters.values()
        if one.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    together = [*own, *parameters(cls)]
    run.__name__, run.__doc__ = command.__name__.lstrip("_"), command.__doc__
    run.__signature__ = inspect.Signature(together)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in together}
    return run


def check_file(option: str, path: str) -> None:
    """Say that a data file is not there before a model is loaded for it.

    Raises:
        ConfigError: There is no such file; it is the command that is wrong, not the data.
    """
    if not Path(path).is_file():
        raise ConfigError(f"{option} does not fit", [explain_missing(Path(path))])


def given(options: Mapping[str, Any], cls: type) -> dict[str, Any]:
    """The options that were given on the command line; a single text is one, not many, where ``cls`` takes either."""
    hints = get_type_hints(cls)
    return {name: _single(value, hints.get(name)) for name, value in options.items() if value is not None}


def field_docs(cls: type) -> dict[str, str]:
    """What each field of a class is for: the docstring below it, read from its source, or ``help`` in its metadata."""
    docs: dict[str, str] = {one.name: one.metadata["help"] for one in attrs.fields(cls) if "help" in one.metadata}
    for parent in reversed(cls.__mro__[:-1]):
        docs.update(_own_docs(parent))
    return docs


def _own_docs(cls: type) -> dict[str, str]:
    try:
        body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    except (OSError, TypeError, SyntaxError):  # made at run time, or shipped without its source
        return {}
    statements = body.body if isinstance(body, ast.ClassDef) else []
    docs: dict[str, str] = {}
    for field, below in pairwise(statements):
        is_text = (
            isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) and isinstance(below.value.value, str)
        )
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and is_text:
            text: str = below.value.value  # type: ignore[attr-defined]
            # Tables and --help break lines themselves.
            docs[field.target.id] = " ".join(text.split()).replace("``", "`")
    return docs


def _annotation(hint: Any, doc: str, default: Any) -> Any:
    shown = "" if default in (None, "", (), {}) else f" [default: {default}]"
    flat = _flat(hint)
    about = Parameter(help=doc + shown, show_default=False)
    if get_origin(flat) in (list, dict):
        about = Parameter(help=doc + shown, show_default=False, consume_multiple=get_origin(flat) is list, negative="")
    return Annotated[flat | None, about]


def _default(field: Any) -> Any:
    if isinstance(field.default, attrs.Factory):  # type: ignore[arg-type]
        return field.default.factory()
    return None if field.default is attrs.NOTHING else field.default


def _flat(hint: Any) -> Any:
    """One text or many of them are the same option on the command line: given several times, or with several values."""
    if get_origin(hint) in (Union, types.UnionType):
        arguments = get_args(hint)
        if str in arguments and any(get_origin(a) is tuple for a in arguments):
            return list[str]
        return Union[tuple(a for a in arguments if a is not type(None))]  # noqa: UP007 - made at run time
    if get_origin(hint) is tuple:
        return list[get_args(hint)[0]]  # type: ignore[misc]
    return hint


def _single(value: Any, hint: Any) -> Any:
    one = isinstance(value, list) and len(value) == 1 and get_origin(hint) is not tuple and str in get_args(hint)
    return value[0] if one else value
