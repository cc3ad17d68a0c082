"""A folder for mlx-lm: both factors transposed, and a configuration that says which layers have some."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from safetensors.torch import save_file

from adapterkit import SelectionError

if TYPE_CHECKING:
    from adapterkit import Export

__all__ = ["write_mlx"]

BLOCK = re.compile(r"model\.layers\.(\d+)\.(.+)")
"""Where mlx-lm has the layers of the architectures that it calls as transformers does: Llama, Mistral, Qwen, Gemma, Phi, …"""


def write_mlx(job: Export) -> str:
    """``adapters.safetensors`` and ``adapter_config.json``.

    mlx-lm makes a pair of factors at each layer of such a name in the last ``num_layers`` blocks; those that the file lacks do
    nothing, as their B is zero.

    Raises:
        SelectionError: An update is elsewhere than in a block of ``model.layers``.
    """
    factors = job.factors()
    places = {site: BLOCK.fullmatch(site) for site in factors}
    outside = sorted(site for site, found in places.items() if found is None)
    if outside:
        raise SelectionError(
            f"the adapter changes {outside[0]!r}: only layers called model.layers.0.… have one name in mlx-lm and transformers"
        )
    blocks = [int(found[1]) for found in places.values() if found]
    tensors = {}
    for site, update in factors.items():
        tensors[f"{site}.lora_a"] = update.down.T.contiguous()
        tensors[f"{site}.lora_b"] = update.up.T.contiguous()
    total = job.base_config().get_text_config().num_hidden_layers
    if max(blocks) >= total:
        raise SelectionError(f"the adapter changes block {max(blocks)}, and the base has {total}: it is another's")
    config = {
        "fine_tune_type": "lora",
        "num_layers": total - min(blocks),
        "lora_parameters": {
            "rank": next(iter(factors.values())).rank,
            "scale": 1.0,
            "dropout": 0.0,
            "keys": sorted({found[2] for found in places.values() if found}),
        },
    }
    save_file(tensors, job.folder / "adapters.safetensors", metadata={"format": "mlx"})
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    (job.folder / "adapter_config.json").write_text(text, encoding="utf-8")
    return "mlx_lm.generate --model BASE --adapter-path FOLDER --prompt …"
