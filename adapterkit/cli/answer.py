"""``adapterkit generate`` and ``adapterkit evaluate``."""

from __future__ import annotations

import json
import sys
from typing import Annotated

from cyclopts import Parameter

from adapterkit.base import Base

from .options import check_file
from .plugins import PluginFiles, registry_with

__all__ = ["evaluate", "generate"]

BaseName = Annotated[str, Parameter(help="A folder with a model, or a Hub id.")]
Revision = Annotated[str | None, Parameter(help="The base's Hub commit, tag or branch.")]
Dtype = Annotated[str, Parameter(help="The base's dtype: auto, float32, bfloat16, float16.")]
Device = Annotated[str, Parameter(help="Where the base is.")]
Quantize = Annotated[str | None, Parameter(help="Load the base in nf4, fp4 or int8.")]
AsJson = Annotated[bool, Parameter(name="--json", help="Print JSON.", negative="")]
AdapterFolder = Annotated[str | None, Parameter(help="The adapter's folder; the base alone without it.")]


def generate(
    base: BaseName,
    prompts: Annotated[
        tuple[str, ...],
        Parameter(
            help="Prompts; read from standard input, a line each, when there are none.", negative="", show_default=False
        ),
    ] = (),
    *,
    adapter: AdapterFolder = None,
    max_new_tokens: Annotated[int, Parameter(help="The longest answer, in tokens.")] = 64,
    temperature: Annotated[float, Parameter(help="0 takes the likeliest token each time.")] = 0.0,
    top_p: Annotated[float, Parameter(help="Choose among the likeliest tokens with this probability.")] = 1.0,
    top_k: Annotated[int | None, Parameter(help="Choose among so many of the likeliest tokens.")] = None,
    seed: Annotated[int, Parameter(help="Governs the choice.")] = 0,
    revision: Revision = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    quantize: Quantize = None,
    as_json: AsJson = False,
    plugin: PluginFiles = (),
) -> None:
    """Answer prompts, one answer a line."""
    registry = registry_with(plugin)
    shared = Base(base, revision=revision, dtype=dtype, device=device, quantize=quantize, registry=registry)
    asked = list(prompts) or [line.rstrip("\n") for line in sys.stdin]
    chosen = shared.load(adapter) if adapter else None
    answers = shared.generate(
        asked,
        adapter=chosen,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        seed=seed,
    )
    if as_json:
        rows = [{"prompt": prompt, "answer": answer} for prompt, answer in zip(asked, answers, strict=True)]
        print(json.dumps(rows, indent=2, ensure_ascii=False))
    else:
        print("\n".join(answers))


def evaluate(
    base: BaseName,
    data: Annotated[str, Parameter(help="A CSV, TSV, JSON, JSONL or Parquet file.")],
    *,
    adapter: AdapterFolder = None,
    columns: Annotated[dict[str, str] | None, Parameter(help="Which column is what: --columns.prompt text.")] = None,
    format: Annotated[str | None, Parameter(help="The data's format, when the first row would not tell.")] = None,  # noqa: A002
    max_new_tokens: Annotated[int | None, Parameter(help="The longest answer, in tokens.")] = None,
    batch_size: Annotated[int, Parameter(help="Rows in one batch.")] = 64,
    compare: Annotated[bool, Parameter(help="Score the base alone as well.")] = True,
    revision: Revision = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    quantize: Quantize = None,
    as_json: AsJson = False,
    plugin: PluginFiles = (),
) -> None:
    """Score an adapter on DATA, beside the base alone."""
    check_file("DATA", data)
    registry = registry_with(plugin)
    shared = Base(base, revision=revision, dtype=dtype, device=device, quantize=quantize, registry=registry)
    chosen = shared.load(adapter) if adapter else None
    result = shared.evaluate(
        data,
        adapter=chosen,
        columns=columns,
        format=format,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        compare=compare,
    )
    if as_json:
        alone = dict(result.base) if result.base else None
        print(json.dumps({"rows": result.rows, "scores": dict(result), "base": alone}, indent=2))
        return
    for name, value in result.items():
        beside = f"  (base {result.base[name]:.4f})" if result.base else ""
        print(f"{name:12} {value:.4f}{beside}")
