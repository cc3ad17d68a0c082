"""The README.md beside an adapter: the Hub's metadata, and all that the manifest knows; the rest is left out."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from .layout import PEFT_CONFIG, WEIGHTS
from .markup import flatten, front_matter, plain, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["render"]

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?", re.ASCII)
ENGINES = {"vllm": "vLLM", "sglang": "SGLang", "gguf": "GGUF (llama.cpp, Ollama)", "mlx": "MLX"}


def render(values: Mapping[str, Any]) -> str:
    """The card of an adapter, of the content of its ``adapterkit.json``."""
    return "\n\n".join([front_matter(_metadata(values)), *_sections(values)]) + "\n"


def _metadata(values: Mapping[str, Any]) -> dict[str, Any]:
    base, tags = values["base"]["name"], ["adapterkit", values["method"]]
    metadata: dict[str, Any] = {}
    # the Hub refuses a card whose base is a folder of somebody's machine; what came from the Hub has a commit
    if HUB_ID.fullmatch(base) and values["base"]["revision"]:
        metadata |= {"base_model": base, "base_model_relation": "adapter"}
        tags.append(f"base_model:adapter:{base}")
    library = "peft" if PEFT_CONFIG in values["files"] else "adapterkit"
    return {**metadata, "library_name": library, "pipeline_tag": "text-generation", "tags": tags}


def _sections(values: Mapping[str, Any]) -> Iterator[str]:
    base, method = values["base"]["name"], plain(values["method"])
    yield f"# {method} adapter" + (f" for {plain(base)}" if base else "")
    yield _introduction(values)
    yield f"## Method: {method}"
    yield table(("option", "value"), flatten(values["config"]))
    if values["training"]:
        yield "## Training"
        yield table(("what", "value"), flatten(values["training"]))
    if values["evaluation"]:
        yield "## Evaluation"
        yield _scores(values["evaluation"])
    yield "## How to load it"
    yield from _loading(base, values["base"]["revision"], has_peft_form=PEFT_CONFIG in values["files"])
    yield "## Where it runs"
    yield table(("engine", "fits", "why"), [(ENGINES[name], *one.values()) for name, one in values["engines"].items()])
    yield "## What proves it"
    yield table(("what", "sha256"), _digests(values))
    versions = flatten({"plugin": values["plugin"], **values["versions"]})
    if versions:
        yield "## Made with"
        yield table(("library", "version"), versions)


def _introduction(values: Mapping[str, Any]) -> str:
    base = values["base"]
    text = f"Made with the method {plain(values['method'])} of adapterkit: weights to be used with their base model"
    text += f", {plain(base['name'])}" if base["name"] else ""
    text += f" at revision {plain(base['revision'])}" if base["revision"] else ""
    return text + ", which they do not contain."


def _scores(evaluation: Mapping[str, Any]) -> str:
    base = evaluation.get("base")
    scores = flatten({name: value for name, value in evaluation.items() if name != "base"})
    if not isinstance(base, dict):
        return table(("score", "with the adapter"), scores)
    beside = dict(flatten(base))
    rows = [(name, score, beside.get(name, "")) for name, score in scores]
    return table(("score", "with the adapter", "base alone"), rows)


def _loading(base: str, revision: str, *, has_peft_form: bool) -> Iterator[str]:
    if not base:
        yield "In this folder, with adapterkit:"
        yield _code('from adapterkit import Adapter\n\nadapter = Adapter.load(".")')
        return
    from_hub = bool(revision)
    yield "In this folder, with adapterkit:" if from_hub else "With adapterkit, from where the base's folder lies:"
    here = '"."' if from_hub else '"path/to/this/folder"'
    where = _literal(base) + (f", revision={_literal(revision)}" if revision else "")
    yield _code(f"from adapterkit import Base\n\nbase = Base({where})\nadapter = base.load({here})\nbase.use(adapter)")
    if has_peft_form:
        yield "With PEFT:"
        yield _code(
            "from peft import PeftModel\nfrom transformers import AutoModelForCausalLM\n\n"
            f"base = AutoModelForCausalLM.from_pretrained({where})\nmodel = PeftModel.from_pretrained(base, {here})"
        )


def _digests(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "the adapter", values["digest"]
    yield "its tensors", values["digests"]["tensors"]
    yield "its configuration", values["digests"]["config"]
    yield WEIGHTS, values["files"][WEIGHTS]["sha256"]
    if values["base"]["fingerprint"]:
        yield "the base (fingerprint)", values["base"]["fingerprint"]


def _literal(text: str) -> str:
    # ASCII on one line, without what could end a block of code or begin a tag
    return re.sub(r"[^ -~]|[`<]", lambda found: f"\\U{ord(found[0]):08x}", json.dumps(text, ensure_ascii=False))


def _code(text: str) -> str:
    return f"```python\n{text}\n```"
