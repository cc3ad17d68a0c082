"""What a run is: what its record says before the first step, and what must be the same for it to be gone on with."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import attrs

from adapterkit.adapter import Adapter
from adapterkit.artifact.manifest import versions
from adapterkit.config import to_dict

from .record import RunRecord, device_name

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from adapterkit.base import Base
    from adapterkit.contracts import Method
    from adapterkit.data.dataset import Encoded
    from adapterkit.data.training import TrainingData

    from .training import Training

__all__ = ["fixed", "identity", "made_before", "summary"]


def fixed(base: Base, method: Method, objective: str, training: Training, rows: TrainingData) -> dict[str, Any]:
    """What the record of a run says before its first step."""
    run = training.run
    return {
        "method": method.name,
        "config": dict(run.config),
        "objective": objective,
        "options": to_dict(run.options),
        "base": attrs.asdict(base.reference),
        "plugin": base.registry.provider(method),
        "quantize": base.quantized or None,
        **summary(rows),
        "steps": run.steps,
        "versions": versions(),
        "device": device_name(base.device),
        "processes": training.processes.count,
        "parameters": sum(one.numel() for one in training.module.parameters() if one.requires_grad),
    }


def summary(rows: TrainingData) -> dict[str, Any]:
    """What the rows were, by the option that they came by: counts and a digest, or None."""
    parts = {"data": rows.rows, "eval_data": rows.held_out, "replay": rows.replay}
    return {name: None if part is None else _counts(part) for name, part in parts.items()}


def _counts(part: Encoded) -> dict[str, Any]:
    counts = attrs.asdict(part.report, filter=attrs.filters.exclude("unusable"))
    return {"digest": part.digest, **counts, "unusable_rows": len(part.report.unusable)}


ENDED = ("finished", "stopped early")
"""What a record says of a run that has made its adapter."""
HOW_OFTEN = ("logging_steps", "save_steps", "save_total_limit", "report_to")
"""Options that change nothing of what is learned: a run may be resumed with others."""


def identity(known: Mapping[str, Any]) -> dict[str, Any]:
    """What must be the same for a checkpoint to be gone on from."""
    names = (
        "method",
        "config",
        "objective",
        "quantize",
        "data",
        "eval_data",
        "replay",
        "learned",
        "steps",
        "processes",
    )
    options = {name: value for name, value in known["options"].items() if name not in HOW_OFTEN}
    same = {**{name: known.get(name) for name in names}, "options": options, "base": known["base"]["fingerprint"]}
    plain: dict[str, Any] = json.loads(json.dumps(same))
    return plain


def made_before(folder: Path, same: Mapping[str, Any], base: Base) -> Adapter | None:
    """The adapter of the same run, where it has ended in this folder."""
    record = RunRecord.read(folder)
    if not record or record.get("status") not in ENDED or identity(record) != same:
        return None
    adapter = Adapter.load(folder / "adapter", registry=base.registry)
    return adapter if adapter.digest == record["adapter"] else None
