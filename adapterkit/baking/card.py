"""The README.md of a baked model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapterkit.artifact.card import HUB_ID
from adapterkit.artifact.markup import front_matter, plain, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .report import Baked

__all__ = ["render"]

SHOWN = 8
"""How many layers are listed: those that lost most."""


def render(baked: Baked, licence: Mapping[str, str]) -> str:
    """The card of a model, with the licence of its base."""
    return "\n\n".join([front_matter(_metadata(baked, licence)), *_sections(baked)]) + "\n"


def _metadata(baked: Baked, licence: Mapping[str, str]) -> dict[str, Any]:
    name, tags = baked.base.name, ["adapterkit"]
    metadata: dict[str, Any] = dict(licence)
    # the Hub refuses a card whose base is a folder of somebody's machine; what came from the Hub has a commit
    if HUB_ID.fullmatch(name) and baked.base.revision:
        relation = "merge" if len(baked.parts) > 1 else "finetune"
        metadata |= {"base_model": name, "base_model_relation": relation}
        tags.append(f"base_model:{relation}:{name}")
    return {**metadata, "library_name": "transformers", "pipeline_tag": "text-generation", "tags": tags}


def _sections(baked: Baked) -> Iterator[str]:
    many, name, revision = len(baked.parts) > 1, plain(baked.base.name), plain(baked.base.revision)
    yield f"# {name} with {len(baked.parts)} adapters" if many else f"# {name} with an adapter"
    yield (
        f"The weights of {name}{f' at revision {revision}' if revision else ''} with what "
        f"{'these adapters change' if many else 'this adapter changes'} added to them by adapterkit. The sums are made in float32 "
        f"and cast once, to {baked.dtype}. It is a model of its own: it needs no adapter and no adapterkit."
    )
    yield table(("method", "weight", "digest"), [(one["method"], one["weight"], one["digest"]) for one in baked.parts])
    yield "## What survived the cast"
    yield (
        f"{baked.survived:.1%} of the update, over {len(baked.layers)} changed parameters. Those that lost most are below. "
        "`update` is its size beside the weight, `survived` the part of it that is there, `error` the rounding beside it."
    )
    least = sorted(baked.layers, key=lambda one: (one.survived, one.name))[:SHOWN]
    yield table(
        ("parameter", "update", "survived", "error"),
        [(one.name, f"{one.update:.2g}", f"{one.survived:.3f}", f"{one.error:.3f}") for one in least],
    )
    yield "## How to load it"
    yield '```python\nfrom transformers import AutoModelForCausalLM\n\nmodel = AutoModelForCausalLM.from_pretrained(".")\n```'
    if baked.base.fingerprint:
        yield f"The base's fingerprint: {plain(baked.base.fingerprint)}"
