"""What a plugin's record must be, seen when it is yielded."""

from __future__ import annotations

import attrs

from .method import Method
from .training import TrainOptions

__all__ = ["check_record"]

RESERVED = {
    *("base", "columns", "data", "eval_data", "format", "method", "objective", "output", "registry", "resume"),
    *("eval_split", "general_data", "name", "replay", "replay_ratio", "report", "report_rows"),
    *("also", "arguments", "as_json", "device", "dtype", "plugin", "processes", "revision"),
}
"""What ``Base.train`` and the command line take for themselves; an option of that name would never reach its method."""
OF_THE_BASE = {"quantize", "double_quant"}
"""Reserved too, but for methods that say by ``base_options`` what the base is loaded with."""


def check_record(record: object, kind: type, hook: str) -> None:
    """Refuse a record that would fail later and further from its author.

    Raises:
        TypeError: It is of another kind, or its configuration can be changed.
        ValueError: Names that are taken.
    """
    if not isinstance(record, kind):
        raise TypeError(f"{hook} must yield {kind.__name__} records, and yielded {record!r}")
    if not isinstance(record, Method):
        return
    if not _is_frozen(record.config):
        raise TypeError(
            f"the config of method {record.name!r} must be a frozen attrs class (@attrs.frozen), not {record.config!r}"
        )
    mine = {field.name for field in attrs.fields(record.config)}
    training = {field.name for field in attrs.fields(TrainOptions)}
    reserved = RESERVED if type(record).base_options is not Method.base_options else RESERVED | OF_THE_BASE
    if mine & reserved:
        raise ValueError(f"options {sorted(mine & reserved)} of method {record.name!r} are words of train itself")
    if mine & training:
        raise ValueError(f"options {sorted(mine & training)} of method {record.name!r} are training options' names")
    if set(record.defaults) - training:
        raise ValueError(
            f"defaults {sorted(set(record.defaults) - training)} of method {record.name!r} are not training options"
        )


def _is_frozen(config: object) -> bool:
    if not isinstance(config, type):
        return False
    try:
        return attrs.inspect(config).is_frozen
    except attrs.exceptions.NotAnAttrsClassError:  # a subclass of one that is not decorated itself is none
        return False
