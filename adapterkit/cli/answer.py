"""``adapterkit generate``."""

from __future__ import annotations

import json
import sys
from typing import Annotated

from cyclopts import Parameter

from .acting import ActingText, open_acting
from .opening import AsJson, BaseName, Device, Dtype, Quantize, Revision, open_base
from .plugins import PluginFiles  # noqa: TC001 - cyclopts reads the annotation

__all__ = ["generate"]


def generate(
    base: BaseName,
    prompts: Annotated[
        tuple[str, ...],
        Parameter(
            help="Prompts; read from standard input, a line each, when there are none.", negative="", show_default=False
        ),
    ] = (),
    *,
    adapter: ActingText = None,
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
    shared = open_base(base, plugin, revision=revision, dtype=dtype, device=device, quantize=quantize)
    asked = list(prompts) or [line.rstrip("\n") for line in sys.stdin]
    chosen = open_acting(shared, adapter)
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
