"""QLoRA's options."""

from __future__ import annotations

from typing import Literal

import attrs

from adapterkit_lora import LoraConfig

__all__ = ["QloraConfig"]


@attrs.frozen(kw_only=True)
class QloraConfig(LoraConfig):
    """LoRA's options, and what the base is in while it is trained on."""

    quantize: Literal["nf4", "fp4", "int8"] = "nf4"
    """What the base's linear layers but the head are stored in."""
    double_quant: bool = True
    """Store the scales of 4-bit weights in 8 bits; says nothing to a base that is loaded so already."""
