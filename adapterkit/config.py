"""Frozen attrs classes as configuration: from options, to JSON, one schema for Python, files and the command line."""

from __future__ import annotations

import json
import types
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import attrs

from .errors import ConfigError, suggest

__all__ = ["build_config", "canonical_json", "from_dict", "option_names", "to_dict"]

T = TypeVar("T")


def option_names(cls: type) -> tuple[str, ...]:
    """The names of the options that ``cls`` takes, in order."""
    return tuple(field.name for field in attrs.fields(cls))


def build_config(cls: type[T], options: dict[str, Any], *, what: str) -> T:
    """Make a ``cls`` of ``options``, or say everything that is wrong with them at once.

    Args:
        cls: A frozen attrs class whose fields are annotated.
        options: Values by field name; lists stand for tuples, and a whole float is not taken for an integer.
        what: How the options are called in the error, such as ``"options of method 'lora'"``.

    Raises:
        ConfigError: Unknown names (with a suggestion), values of the wrong type, values that a validator refuses.
    """
    hints = get_type_hints(cls)
    fields = {field.name: field for field in attrs.fields(cast("Any", cls))}
    problems = [f"{name}: no such option{suggest(name, fields)}" for name in options if name not in fields]
    values: dict[str, Any] = {}
    for name, field in fields.items():
        if name in options:
            try:
                values[name] = _convert(options[name], hints[name])
                if field.validator is not None:
                    field.validator(None, field, values[name])
            except (TypeError, ValueError) as error:
                problems.append(f"{name}: {_first_line(error).removeprefix(f'{name!r} ')}")  # attrs names the field too
        elif field.default is attrs.NOTHING:
            problems.append(f"{name}: is required")
    if not problems:
        try:
            return cls(**values)
        except (TypeError, ValueError) as error:
            problems.append(_first_line(error))
    raise ConfigError(f"{what} do not fit", problems)


def to_dict(config: Any) -> dict[str, Any]:
    """The configuration as JSON values: tuples become lists, nothing is left out."""
    plain: dict[str, Any] = json.loads(json.dumps(attrs.asdict(config)))
    return plain


def from_dict(cls: type[T], values: dict[str, Any], *, what: str) -> T:
    """The inverse of :func:`to_dict`, with the checks of :func:`build_config`."""
    return build_config(cls, values, what=what)


def canonical_json(value: Any) -> str:
    """One text for one value: sorted keys, no spaces, no NaN; what digests are taken of."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _first_line(error: Exception) -> str:
    # attrs' own validators raise with the message first and the attribute, class and value behind it
    text = str(error.args[0]) if error.args else str(error)
    return text.splitlines()[0] if text else type(error).__name__


def _convert(value: Any, hint: Any) -> Any:
    """``value`` as ``hint`` says, without guessing: only whole numbers for floats and lists for tuples are bent."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return _convert_union(value, arguments)
    if origin is Literal:
        if value not in arguments:
            known = ", ".join(repr(a) for a in arguments)
            raise ValueError(f"must be one of {known}, not {value!r}{suggest(str(value), map(str, arguments))}")
        return value
    if origin is tuple:
        return _convert_tuple(value, arguments[0])
    if origin is dict:
        if not isinstance(value, dict):
            raise TypeError(f"must be a mapping, not {value!r}")
        return {_convert(k, arguments[0]): _convert(v, arguments[1]) for k, v in value.items()}
    return _convert_scalar(value, hint)


def _convert_union(value: Any, arguments: tuple[Any, ...]) -> Any:
    reasons = []
    for argument in arguments:
        try:
            return _convert(value, argument)
        except (TypeError, ValueError) as error:
            reasons.append(str(error))
    begin, end = "must be ", f", not {value!r}"
    if all(reason.startswith(begin) and reason.endswith(end) for reason in reasons):
        wanted = [reason.removeprefix(begin).removesuffix(end) for reason in reasons]
        raise TypeError(f"{begin}{' or '.join(dict.fromkeys(wanted))}{end}")
    raise TypeError(" or ".join(reasons))


def _convert_tuple(value: Any, item: Any) -> tuple[Any, ...]:
    if isinstance(value, str) or not isinstance(value, (list, tuple, set, frozenset)):
        raise TypeError(f"must be a list, not {value!r}")
    ordered = sorted(value) if isinstance(value, (set, frozenset)) else value
    return tuple(_convert(v, item) for v in ordered)


def _convert_scalar(value: Any, hint: Any) -> Any:
    if hint is float and type(value) is int:
        return float(value)
    if hint is types.NoneType:
        hint = type(None)
    if type(value) is not hint:
        name = "None" if hint is type(None) else getattr(hint, "__name__", str(hint))
        raise TypeError(f"must be {_with_article(name)}, not {value!r}")
    return value


def _with_article(name: str) -> str:
    known = {"int": "a whole number", "float": "a number", "str": "a text", "bool": "true or false", "None": "none"}
    return known.get(name, f"a {name}")
