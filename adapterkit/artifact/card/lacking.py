"""What a card lacks to be published: a line each, with the cure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from adapterkit.artifact.evaluated import results_of

from .about import HUB_ID, About

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .about import Publication

__all__ = ["missing"]

LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]*", re.ASCII)
LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*|code|multilingual", re.ASCII)


def missing(values: Mapping[str, Any], publication: Publication) -> list[str]:
    """What would be missing, or wrong, in a card that is published so; empty where nothing is.

    Each line begins with the word for what it is about, and a colon: ``license``, ``base_model``, ``evaluation``, ``language``,
    ``datasets`` or ``repository``.

    Args:
        values: The content of an ``adapterkit.json``, or of an ``adapterkit-bake.json``, of which no scores are asked.
        publication: What is said of it.
    """
    return [
        *_repository(publication),
        *_licence(publication),
        *_base(About(values, publication)),
        *(_evaluation(values) if "evaluation" in values else ()),
        *_named(publication),
    ]


def _repository(said: Publication) -> Iterator[str]:
    if said.repository and not HUB_ID.fullmatch(said.repository):
        yield f"repository: {said.repository!r:.100} is no id of the Hub: give one such as 'org/cards'"


def _licence(said: Publication) -> Iterator[str]:
    if not said.license:
        yield (
            "license: nobody may use what has none: say which, as in license='apache-2.0'; the base's own licence may bind "
            "what is made of it"
        )
    elif not LICENCE.fullmatch(said.license):
        yield f"license: {said.license!r:.100} is no name that the Hub has: give one such as 'apache-2.0', or 'other'"
    elif said.license == "other" and not (said.license_name and said.license_link):
        yield "license: 'other' needs license_name and license_link: what it is called, and where it can be read"


def _base(about: About) -> Iterator[str]:
    said = about.publication.base_model
    if said and not HUB_ID.fullmatch(said):
        yield f"base_model: {said!r:.100} is no id of the Hub: give one such as 'org/model'"
    elif about.publication.repository and not about.base_id:
        name = about.values["base"]["name"]
        what = f"{name!r:.100} is a folder of one machine" if name else "the adapter does not say what its base is"
        yield f"base_model: {what}: say which model of the Hub it is, as in base_model='org/model'"


def _evaluation(values: Mapping[str, Any]) -> Iterator[str]:
    evaluation = values["evaluation"]
    results = results_of(evaluation) if isinstance(evaluation, dict) else ()
    if not results:
        yield (
            "evaluation: there are no scores: `adapterkit evaluate BASE DATA --adapter FOLDER --save` writes them into the "
            "adapter's folder, `adapter.with_evaluation(result)` in Python"
        )
    for one in results:
        if not one.base:
            yield f"evaluation: {one.name!r:.100} has no scores of the base beside: evaluate with compare=True, the default"


def _named(said: Publication) -> Iterator[str]:
    for one in said.language:
        if not LANGUAGE.fullmatch(one):
            yield f"language: {one!r:.50} is no ISO 639 code: give one such as 'en'"
    for one in said.datasets:
        if not HUB_ID.fullmatch(one):
            yield f"datasets: {one!r:.100} is no id of the Hub: give one such as 'org/rows'; files are named in the card anyway"
