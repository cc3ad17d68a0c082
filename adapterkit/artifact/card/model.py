"""The card of a model that was baked: a base with what adapters change added to its weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from adapterkit.artifact.markup import front_matter, paragraphs, plain, table

from .about import About, Publication
from .loading import load_model
from .metadata import model_metadata

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["render_model"]

SHOWN = 8
"""How many layers are listed: those that lost most."""


def render_model(
    values: Mapping[str, Any], licence: Mapping[str, str] | None = None, publication: Publication | None = None
) -> str:
    """The card of a model.

    Args:
        values: The content of its ``adapterkit-bake.json``.
        licence: ``license``, ``license_name`` and ``license_link`` of its base, where its publisher says no other.
        publication: What is said of it when it is published; None for a folder on somebody's disk.
    """
    said = publication
    if licence and not (publication and publication.license):
        said = attrs.evolve(publication or Publication(), **dict[str, Any](licence))
    metadata = model_metadata(About(values, said), merged=len(values["adapters"]) > 1)
    return "\n\n".join([front_matter(metadata), *_sections(About(values, publication))]) + "\n"


def _sections(about: About) -> Iterator[str]:
    values = about.values
    parts, many = values["adapters"], len(values["adapters"]) > 1
    name, revision = plain(about.base), plain(about.base_revision)
    yield (
        f"# {plain(about.name)}"
        if about.name
        else f"# {name} with {f'{len(parts)} adapters' if many else 'an adapter'}"
    )
    yield (
        f"The weights of {about.linked_base}{f' at revision {revision}' if revision else ''} with what "
        f"{'these adapters change' if many else 'this adapter changes'} added to them by adapterkit. The sums are made in float32 "
        f"and cast once, to {plain(values['dtype'])}. It is a model of its own: it needs no adapter and no adapterkit."
    )
    yield table(("method", "weight", "digest"), [(one["method"], one["weight"], one["digest"]) for one in parts])
    yield from paragraphs(about.publication.description)
    yield "## Use and limits"
    yield from paragraphs(about.publication.limits)
    yield (
        f"No scores of this model are recorded; those of its adapter{'s' if many else ''}, where there are any, were taken before "
        "the cast. Whatever the base gets wrong or must not be used for holds for it as well."
    )
    yield "## How to load it"
    yield from load_model(about)
    yield "## What survived the cast"
    yield (
        f"{values['survived']:.1%} of the update, over {len(values['layers'])} changed parameters. Those that lost most are below. "
        "`update` is its size beside the weight, `survived` the part of it that is there, `error` the rounding beside it."
    )
    least = sorted(values["layers"], key=lambda one: (one["survived"], one["name"]))[:SHOWN]
    yield table(
        ("parameter", "update", "survived", "error"),
        [(one["name"], _size(one["update"]), f"{one['survived']:.3f}", f"{one['error']:.3f}") for one in least],
    )
    if values["base"]["fingerprint"]:
        yield f"The base's fingerprint: {plain(values['base']['fingerprint'])}"


def _size(update: float | None) -> str:
    return "" if update is None else f"{update:.2g}"  # none where the base's own weight is zero
