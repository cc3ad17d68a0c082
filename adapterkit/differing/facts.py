"""What two adapters say of themselves, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from adapterkit.artifact.evaluated import forgetting_of, results_of
from adapterkit.config import to_dict

from .difference import Changed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from adapterkit.adapter import Adapter

__all__ = ["facts"]

DATA = ("data", "eval_data", "replay")


def facts(first: Adapter, second: Adapter) -> dict[str, tuple[Changed, ...]]:
    """What differs, by part."""
    mine, theirs = _facts(first), _facts(second)
    return {part: _changed(mine[part], theirs[part]) for part in mine}


def _facts(adapter: Adapter) -> dict[str, Mapping[str, Any]]:
    said = adapter.manifest
    training = dict(said.training)
    data = {name: training.pop(name) for name in DATA if name in training}
    return {
        "config": {"method": adapter.method, **_flat(to_dict(adapter.config))},
        "base": attrs.asdict(said.base),
        "data": _flat(data),
        "training": _flat(training),
        "lineage": _flat(said.lineage),
        "scores": _scores(said.evaluation),
        "versions": {"plugin": said.plugin, **said.versions},
    }


def _scores(evaluation: Mapping[str, Any]) -> dict[str, float]:
    found = {f"{one.name}: {name}": value for one in results_of(evaluation) for name, value in one.scores.items()}
    forgotten = forgetting_of(evaluation)
    return found if forgotten is None else {**found, f"{forgotten.name or 'general text'}: loss": forgotten.loss}


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Names and values, a level down behind a dot; of several mappings in a list each is told by its number."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{before}{name}.")
        elif isinstance(value, list) and any(isinstance(one, dict) for one in value):
            numbered = {str(number): one for number, one in enumerate(value, 1)}
            found |= _flat(numbered, f"{before}{name}.")
        else:
            found[before + name] = value
    return found


def _changed(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> tuple[Changed, ...]:
    names = dict.fromkeys([*mine, *theirs])
    return tuple(
        Changed(name, mine.get(name), theirs.get(name)) for name in names if mine.get(name) != theirs.get(name)
    )
