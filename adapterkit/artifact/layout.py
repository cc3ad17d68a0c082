"""What an adapter folder holds, and how much of it is ever read."""

from __future__ import annotations

__all__ = [
    "BAKED",
    "CARD",
    "KEPT",
    "MANIFEST",
    "MOST_HEADER_BYTES",
    "MOST_JSON_BYTES",
    "MOST_TENSORS",
    "MOST_WEIGHT_BYTES",
    "OURS",
    "PEFT_CONFIG",
    "SIGNATURE",
    "WEIGHTS",
]

WEIGHTS = "adapter_model.safetensors"
PEFT_CONFIG = "adapter_config.json"
MANIFEST = "adapterkit.json"
CARD = "README.md"
SIGNATURE = "model.sig"
"""What OpenSSF's model-signing calls it; it is there where somebody has signed the folder."""
KEPT = (PEFT_CONFIG, WEIGHTS, MANIFEST, SIGNATURE)
"""Every file that is ever read, fetched or stored of an adapter; the card is written anew from the manifest."""
OURS = (*KEPT, CARD)
"""Every file that an adapter's folder may hold."""
BAKED = "adapterkit-bake.json"
"""Of a baked model: what it was made of."""

MOST_JSON_BYTES = 1 << 20
"""PEFT's configurations are a few kilobytes; ten thousand named targets take half of this."""
MOST_HEADER_BYTES = 32 << 20
"""The largest mixtures of experts, with a pair of factors for every expert, have headers of about 25 MiB."""
MOST_TENSORS = 200_000
"""The same mixtures have about 140,000 factors."""
MOST_WEIGHT_BYTES = 32 << 30
"""A full difference of a model of 7 billion numbers in float32 takes 28 GB; a file may be sparse, memory is not."""
