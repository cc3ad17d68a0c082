"""What is known of an adapter, a line for each thing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapterkit.artifact.card.making import telling_options
from adapterkit.artifact.evaluated import forgetting_of, results_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from adapterkit.artifact.manifest import Manifest

__all__ = ["DATA", "SHORT", "lines_of"]

DATA = {"data": "trained on", "eval_data": "held out", "replay": "mixed in"}
SHORT = 12


def lines_of(said: Manifest | None, lineage: Mapping[str, Any]) -> Iterator[str]:
    """The lines.

    Args:
        said: What the adapter says of itself; None where that is not known.
        lineage: How it was made of others; empty where it was not, or where that is not known.
    """
    if said is None and not lineage:
        yield "nothing more is known of it here"
        return
    if said is not None:
        yield from _of_base(said)
    if lineage.get("kind") == "merge":
        yield _of_merge(lineage)
    elif lineage:
        yield from _of_making(lineage)
    if said is not None:
        yield from _of_training(said.training)
        yield from _of_scores(said.evaluation)
        made_with = [said.plugin, *(f"{name} {one}" for name, one in said.versions.items())]
        if any(made_with):
            yield f"made with: {', '.join(dict.fromkeys(filter(None, made_with)))}"


def _of_base(said: Manifest) -> Iterator[str]:
    if said.base.name or said.base.fingerprint:
        revision = f" at {said.base.revision[:SHORT]}" if said.base.revision else ""
        mark = f", fingerprint {said.base.fingerprint[:SHORT]}" if said.base.fingerprint else ""
        yield f"base: {said.base.name or 'unnamed'}{revision}{mark}"


def _of_merge(lineage: Mapping[str, Any]) -> str:
    names = ("rank", "space", "seed")
    options = {**{name: lineage.get(name) for name in names}, **_dict(lineage.get("options"))}
    said = " ".join(f"{name}={value}" for name, value in options.items() if value is not None)
    lost = _dict(lineage.get("lost")).get("overall")
    cut = f"; {lost:.1%} of the change was cut off" if isinstance(lost, (int, float)) and lost else ""
    return f"merged: {lineage.get('strategy', '')} {said}".rstrip() + cut


def _of_making(lineage: Mapping[str, Any]) -> Iterator[str]:
    said = " ".join(f"{name}={lineage[name]}" for name in ("rank", "max_error", "seed", "error") if name in lineage)
    tuned = _dict(lineage.get("tuned"))
    mark = tuned.get("fingerprint")
    of = f" of a model with the fingerprint {str(mark)[:SHORT]}" if mark else ""
    yield f"{lineage.get('kind', 'made')}{of}: {said}"


def _of_training(training: Mapping[str, Any]) -> Iterator[str]:
    for name, what in DATA.items():
        part = _dict(training.get(name))
        if part:
            files = part.get("files")
            named = f"{', '.join(map(str, files))}: " if isinstance(files, list) else ""
            rows = part.get("rows", "?")
            yield f"{what}: {named}{rows} row{'' if rows == 1 else 's'}, digest {str(part.get('digest', ''))[:SHORT]}"
    options = _dict(training.get("options"))
    if options:
        told = telling_options(options, training.get("steps"))
        steps = f"{training['steps']} steps, " if "steps" in training else ""
        quantized = f" on the base in {training['quantize']}" if "quantize" in training else ""
        said = ", ".join(f"{name}={value}" for name, value in told.items())
        yield f"trained{quantized}: {steps}{said}"


def _of_scores(evaluation: Mapping[str, Any]) -> Iterator[str]:
    for one in results_of(evaluation):
        scores = ", ".join(
            f"{name} {value:.4g}" + (f" (base {one.base[name]:.4g})" if name in one.base else "")
            for name, value in one.scores.items()
        )
        yield f"scored on {one.name}: {scores}"
    forgotten = forgetting_of(evaluation)
    if forgotten is not None:
        yield f"forgetting: the perplexity of general text is {forgotten.perplexity:+.1%}"


def _dict(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
