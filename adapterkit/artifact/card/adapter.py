"""The card of an adapter: what it is, what it is for, how well it does, how it was made and how it is loaded."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from adapterkit.artifact.layout import WEIGHTS
from adapterkit.artifact.markup import flatten, front_matter, paragraphs, plain, table

from .about import About
from .loading import load_adapter
from .making import making
from .metadata import adapter_metadata
from .scores import forgetting, scores, unknown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .about import Publication

__all__ = ["render"]

ENGINES = {"vllm": "vLLM", "sglang": "SGLang", "gguf": "GGUF (llama.cpp, Ollama)", "mlx": "MLX"}


def render(values: Mapping[str, Any], publication: Publication | None = None) -> str:
    """The card of an adapter.

    Args:
        values: The content of its ``adapterkit.json``.
        publication: What is said of it when it is published; None for a folder on somebody's disk.
    """
    about = About(values, publication)
    return "\n\n".join([front_matter(adapter_metadata(about)), *_sections(about)]) + "\n"


def _sections(about: About) -> Iterator[str]:
    yield f"# {_title(about)}"
    yield _introduction(about)
    yield from paragraphs(about.publication.description)
    yield "## Use and limits"
    yield from paragraphs(about.publication.limits)
    yield _use(about)
    yield from scores(about)
    yield from forgetting(about)
    yield "## How to load it"
    yield from load_adapter(about)
    yield from making(about)
    yield "## Where it runs"
    rows = [
        (ENGINES.get(name, name), one.get("fits", ""), one.get("reason", "").replace("`", "'"))
        for name, one in about.values["engines"].items()
    ]
    yield table(("engine", "fits", "why"), rows)
    yield "## What proves it"
    yield table(("what", "sha256"), _digests(about.values))
    versions = flatten({"plugin": about.values["plugin"], **about.values["versions"]})
    if versions:
        yield "## Made with"
        yield table(("library", "version"), versions)


def _title(about: About) -> str:
    if about.name:
        return plain(about.name)
    base = f" for {plain(about.base)}" if about.base else ""
    return f"{plain(about.values['method'])} adapter{base}"


def _introduction(about: About) -> str:
    method = plain(about.values["method"])
    base = about.linked_base
    text = f"Made with the method {method} of adapterkit (`pip install adapterkit`): weights to be used with their base model"
    text += f", {base}" if base else ""
    text += f" at revision {plain(about.base_revision)}" if base and about.base_revision else ""
    return text + ", which they do not contain."


def _use(about: About) -> str:
    data = about.part("training").get("data")
    data = data if isinstance(data, dict) else {}
    rows = data.get("rows")
    if about.is_merged:
        trained = "It was made of other adapters without further training, and is for what they were made for."
    elif isinstance(rows, int):
        files = ", ".join(map(str, data["files"])) if isinstance(data.get("files"), list) else ""
        of = f" of {plain(files)}" if files else ""
        seen = _seen(about.part("training"))
        part = f"{seen:,} of " if seen is not None and seen < rows else ""
        count = f"{part}{rows:,} row{'' if rows == 1 else 's'}{of}"
        trained = f"It was trained on {count}, and is for prompts like those."
    else:
        trained = "What it was trained on is not recorded."
    base = "the base" if about.base else "its base"
    return f"{trained} {unknown(about)} Whatever {base} gets wrong or must not be used for holds for it as well."


def _seen(training: Mapping[str, Any]) -> int | None:
    """How many rows the steps had taken in together, if each had its full batch."""
    options = training.get("options")
    options = options if isinstance(options, dict) else {}
    counts = (training.get("steps"), options.get("batch_size"), options.get("gradient_accumulation_steps", 1))
    return math.prod(counts) if all(isinstance(count, int) for count in counts) else None


def _digests(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "the adapter", values["digest"]
    yield "its tensors", values["digests"]["tensors"]
    yield "its configuration", values["digests"]["config"]
    yield WEIGHTS, values["files"][WEIGHTS]["sha256"]
    if values["base"]["fingerprint"]:
        yield "the base (fingerprint)", values["base"]["fingerprint"]
