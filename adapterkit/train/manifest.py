"""What the manifest of an adapter says of the run that made it: only what would be the same the next time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapterkit.artifact.evaluated import rounded, with_result
from adapterkit.artifact.manifest import Manifest, versions
from adapterkit.config import to_dict
from adapterkit.data.reading import file_name
from adapterkit.data.training import sources_of

from .identity import summary

if TYPE_CHECKING:
    from collections.abc import Mapping

    from adapterkit.evaluation import Evaluation

    from .preparing import Prepared

__all__ = ["manifest_of", "summary_of"]


def manifest_of(one: Prepared) -> Manifest:
    """What is worth knowing of the run, as far as it would be the same the next time."""
    base, run, log = one.base, one.training.run, one.training.log
    kept = one.training.watch.kept_step
    training = {
        "objective": one.asked.objective,
        "options": to_dict(run.options),
        "steps": one.training.step if kept is None else kept,
        **({"quantize": base.quantized} if base.quantized else {}),
        **_data(one),
    }
    # of the state that became the adapter, and not of steps that were taken after it
    losses = {name: log.last(name, until=kept) for name in ("loss", "eval_loss", "general_loss")}
    return Manifest(
        base=base.reference,
        plugin=base.registry.provider(one.method),
        training={**training, **{name: value for name, value in losses.items() if value is not None}},
        evaluation=_measured(one, losses),
        versions=versions(),
    )


def _data(one: Prepared) -> dict[str, Any]:
    """What the rows were, by the option that they came by: files, a digest, counts."""
    found = {}
    for name, counts in summary(one.rows).items():
        if counts is not None:
            files = _files(one, name)
            found[name] = {"digest": counts.pop("digest"), **({"files": files} if files else {}), **counts}
    return found


def _files(one: Prepared, option: str) -> list[str]:
    """The names of the files that rows came from; an adapter is the same wherever these lie."""
    given = one.job.data if option == "data" else one.job.options.get(option)
    return [name for source in sources_of(given) if (name := file_name(source.data))]


def _held_out_name(one: Prepared) -> str:
    if one.job.options.get("eval_data") is not None:
        return ", ".join(_files(one, "eval_data")) or "held-out rows"
    files = ", ".join(_files(one, "data"))
    return f"{files} (held out)" if files else "held-out rows"


def _measured(one: Prepared, losses: Mapping[str, float | None]) -> dict[str, Any]:
    """What the run has measured by itself: its losses on held-out rows and on general text, beside the base's."""
    log, found = one.training.log, {}
    before = {name: log.last(name, until=0) for name in ("eval_loss", "general_loss")}
    rows = one.rows.held_out
    if rows is not None and losses["eval_loss"] is not None:
        held_out = {
            "name": _held_out_name(one),
            "digest": rows.digest,
            "rows": len(rows.examples),
            "scores": {"eval_loss": losses["eval_loss"]},
            "base": {"eval_loss": before["eval_loss"]},
        }
        found = with_result({}, rounded(held_out))
    if losses["general_loss"] is not None:
        name = file_name(one.asked.general_data) or "general text"
        found["forgetting"] = rounded({"name": name, "loss": losses["general_loss"], "base": before["general_loss"]})
    return found


def summary_of(one: Prepared, scores: Evaluation) -> dict[str, Any]:
    """The scores as the manifest has them; they may be of a part of the held-out rows."""
    rows = one.rows.held_out
    of = {"of": len(rows.examples)} if rows is not None and len(rows.examples) != scores.rows else {}
    return {**scores.summary(_held_out_name(one)), **of}
