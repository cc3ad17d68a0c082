"""QLoRA as a method: LoRA, told on what it is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from adapterkit_lora import LoraMethod

from .config import QloraConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["QloraMethod"]


@attrs.frozen(eq=False)
class QloraMethod(LoraMethod):
    """The method ``qlora``; its adapters are LoRA's, and act on the base in any precision."""

    name: str = "qlora"
    config: type = QloraConfig
    summary: str = attrs.field(default="LoRA on a base in 4 or 8 bits", kw_only=True)
    # The learning rate is that of the QLoRA paper, table 9. The rest is for memory, which is what the method is for: 2048 tokens
    # still are ten times the work of unpacking the weights for them.
    defaults: Mapping[str, Any] = attrs.field(
        factory=lambda: {"learning_rate": 2e-4, "gradient_checkpointing": True, "tokens_per_pass": 2048}, kw_only=True
    )

    def base_options(self, config: QloraConfig) -> Mapping[str, Any]:
        """The base in 4 or 8 bits."""
        return {"quantize": config.quantize, "double_quant": config.double_quant}

    def from_peft(self, values: Mapping[str, Any]) -> QloraConfig:
        """As LoRA's: PEFT's file does not say what an adapter was trained on."""
        return QloraConfig(**attrs.asdict(super().from_peft(values), recurse=False))
