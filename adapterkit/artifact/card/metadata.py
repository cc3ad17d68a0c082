"""The metadata at the head of a card, as the Hub reads it: https://huggingface.co/docs/hub/model-cards#model-card-metadata."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from adapterkit.artifact.evaluated import results_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from adapterkit.artifact.evaluated import Result

    from .about import About, Publication

__all__ = ["adapter_metadata", "model_metadata"]

TASK = "text-generation"
METRICS = {"accuracy": "accuracy", "exact_match": "exact_match", "f1": "f1", "perplexity": "perplexity"}
METRICS |= dict.fromkeys(("rouge_1", "rouge_2", "rouge_l"), "rouge")
"""What the Hub calls metrics that it knows."""


def adapter_metadata(about: About) -> dict[str, Any]:
    """Of an adapter; of a merged one the Hub knows no other relation to its base, and a tag says the rest."""
    results = results_of(about.part("evaluation"))
    metrics = sorted({METRICS[name] for one in results for name in one.scores if name in METRICS})
    tags = ["adapterkit", about.values["method"], *(["merge"] if about.is_merged else [])]
    return {
        **_terms(about.publication),
        **_base(about.base_id, "adapter"),
        "library_name": "peft" if about.has_peft_form else "adapterkit",
        "pipeline_tag": TASK,
        "tags": [*tags, *_base_tags(about.base_id, "adapter"), *about.publication.tags],
        **({"metrics": metrics} if metrics else {}),
        **_model_index(about.name or f"{about.values['method']} adapter", results),
    }


def model_metadata(about: About, *, merged: bool) -> dict[str, Any]:
    """Of a whole model: a fine-tune of its base, or a merge where several adapters went into it."""
    relation = "merge" if merged else "finetune"
    return {
        **_terms(about.publication),
        **_base(about.base_id, relation),
        "library_name": "transformers",
        "pipeline_tag": TASK,
        "tags": ["adapterkit", *_base_tags(about.base_id, relation), *about.publication.tags],
    }


def _terms(said: Publication) -> dict[str, Any]:
    named = {name: getattr(said, name) for name in ("license", "license_name", "license_link", "language", "datasets")}
    return {name: value for name, value in named.items() if value}


def _base(base: str, relation: str) -> dict[str, str]:
    # the Hub refuses a card whose base is a folder of somebody's machine
    return {"base_model": base, "base_model_relation": relation} if base else {}


def _base_tags(base: str, relation: str) -> list[str]:
    return [f"base_model:{relation}:{base}"] if base else []


def _model_index(name: str, results: Sequence[Result]) -> dict[str, Any]:
    if not results:
        return {}
    found = [_indexed(one, kind) for one, kind in zip(results, _kinds(one.name for one in results), strict=True)]
    return {"model-index": [{"name": name, "results": found}]}


def _indexed(result: Result, kind: str) -> dict[str, Any]:
    about = {"rows": result.rows, "sha256": result.digest or None}
    args = {name: value for name, value in about.items() if value is not None}
    return {
        "task": {"type": TASK, "name": "Text generation"},
        "dataset": {"name": result.name, "type": kind, **({"args": args} if args else {})},
        "metrics": [
            {"type": METRICS.get(name, name), "value": value, "name": name} for name, value in result.scores.items()
        ],
    }


def _kinds(names: Iterable[str]) -> Iterator[str]:
    """An id for each data set that is none of the Hub's, of its name; the Hub's client takes those of one id for one."""
    taken: set[str] = set()
    for name in names:
        stem = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:80] or "rows"
        kind, number = stem, 1
        while kind in taken:
            number += 1
            kind = f"{stem}-{number}"
        taken.add(kind)
        yield kind
