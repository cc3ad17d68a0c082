"""How an adapter was made: by training, of other adapters, or out of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapterkit.artifact.markup import flatten, plain, table
from adapterkit.config import to_dict
from adapterkit.contracts import TrainOptions

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .about import About

__all__ = ["making", "telling_options"]

TELLING = ("epochs", "max_steps", "batch_size", "learning_rate", "lr_scheduler_type", "max_length", "seed")
"""Options that are shown even where they are the default."""
ASIDE = ("logging_steps", "save_steps", "save_total_limit", "report_to", "eval_steps")
"""Options that change nothing of what is learned."""
DATA = {"data": "trained on", "eval_data": "held out", "replay": "mixed in"}
LOSSES = {"loss": "last training loss", "eval_loss": "loss on held-out rows", "general_loss": "loss on general text"}
MOST_PARENTS = 50


def making(about: About) -> Iterator[str]:
    """Blocks of Markdown; nothing for what is not known."""
    lineage, training = about.part("lineage"), about.part("training")
    if lineage:
        yield "## What it was made of"
        kind = {"merge": _merged, "extract": _extracted}.get(str(lineage.get("kind")), _unknown)
        yield from kind(lineage)
    if training:
        yield "## How it was trained"
        yield from _trained(training)
    yield f"## Method: {plain(about.values['method'])}"
    yield table(("option", "value"), flatten(about.values["config"]))


# -- training -------------------------------------------------------------------------------------------------------------


def _trained(training: Mapping[str, Any]) -> Iterator[str]:
    rest = dict(training)
    data = {name: rest.pop(name) for name in DATA if isinstance(rest.get(name), dict)}
    options = rest.pop("options") if isinstance(rest.get("options"), dict) else {}
    if data:
        yield table(
            ("rows", "file", "count", "trained tokens an epoch", "sha256"),
            [_data(DATA[name], part) for name, part in data.items()],
        )
    losses = {LOSSES[name]: rest.pop(name) for name in LOSSES if name in rest}
    base = {"base quantized in": rest.pop("quantize")} if rest.get("quantize") else {}
    rows = flatten({**base, **rest, **telling_options(options, rest.get("steps")), **losses})
    if rows:
        yield table(("what", "value"), rows)


def _data(what: str, part: Mapping[str, Any]) -> tuple[str, ...]:
    files = part.get("files")
    named = ", ".join(map(str, files)) if isinstance(files, list) else ""
    return what, named, _count(part.get("rows")), _count(part.get("trained_tokens")), str(part.get("digest", ""))


def _count(value: Any) -> str:
    return f"{value:,.0f}" if isinstance(value, (int, float)) else ""


def telling_options(options: Mapping[str, Any], steps: Any) -> dict[str, Any]:
    """Options of a run that tell something: the usual ones, and those that are not as they are by default.

    Args:
        options: All of them.
        steps: How many it took, where that is said beside.
    """
    defaults = to_dict(TrainOptions())
    kept = {name: one for name, one in options.items() if name not in ASIDE}
    if kept.get("max_steps") is not None:
        kept.pop("epochs", None)
    if kept.get("max_steps") == steps:
        kept.pop("max_steps", None)
    told = {name: kept.pop(name) for name in TELLING if name in kept}
    more = {name: one for name, one in sorted(kept.items()) if (one or None) != (defaults.get(name) or None)}
    return {**told, **more}


# -- of other adapters ----------------------------------------------------------------------------------------------------


def _merged(lineage: Mapping[str, Any]) -> Iterator[str]:
    parents = _dicts(lineage.get("parents"))
    strategy = plain(lineage.get("strategy", ""))
    plural = "" if len(parents) == 1 else "s"
    yield f"{len(parents)} adapter{plural}, merged by the strategy {strategy} without further training. {_lost(lineage)}".strip()
    yield table(
        ("weight", "method", "digest"),
        [(_weight(one.get("weight")), one.get("method", ""), one.get("digest", "")) for one in parents[:MOST_PARENTS]],
    )
    if len(parents) > MOST_PARENTS:
        yield f"And {len(parents) - MOST_PARENTS} more."
    stages = _dicts(lineage.get("recipe"))
    rest = {name: lineage[name] for name in ("rank", "space", "seed", "options") if name in lineage}
    rows = [*flatten(rest), *([("stages of the recipe", len(stages))] if stages else [])]
    if rows:
        yield table(("option", "value"), rows)


def _lost(lineage: Mapping[str, Any]) -> str:
    lost = lineage.get("lost")
    overall = lost.get("overall") if isinstance(lost, dict) else None
    if not isinstance(overall, (int, float)):
        return ""
    if not overall:
        return "Nothing of the change was cut off."
    return f"{overall:.1%} of the change, by its norm, did not fit into the rank and was cut off."


def _extracted(lineage: Mapping[str, Any]) -> Iterator[str]:
    tuned = lineage.get("tuned")
    tuned = tuned if isinstance(tuned, dict) else {}
    what = (
        f"an adapter of the method {plain(tuned['method'])}" if "method" in tuned else "a model that was tuned in full"
    )
    error = lineage.get("error")
    beside = f" {error:.1%} of the difference, by its norm, is not in it." if isinstance(error, (int, float)) else ""
    yield f"The difference of {what} from the base, in few directions.{beside}"
    lost = lineage.get("lost")
    rows = flatten({name: lineage[name] for name in ("rank", "max_error", "seed") if name in lineage})
    rows += [(f"tuned: {name}", tuned[name]) for name in ("digest", "fingerprint") if tuned.get(name)]
    rows += [("left out", ", ".join(map(str, lost)))] if isinstance(lost, dict) and lost else []
    if rows:
        yield table(("what", "value"), rows)


def _unknown(lineage: Mapping[str, Any]) -> Iterator[str]:
    yield table(("what", "value"), flatten(lineage))


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _weight(value: Any) -> str:
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)
