"""Bases in 4 or 8 bits: how bitsandbytes is asked for them, how they are known, and what keeps their bits as they were loaded."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from .errors import BaseLoadError, suggest

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from torch import nn

__all__ = [
    "FORMATS",
    "bytes_of",
    "check_format",
    "format_of",
    "hush",
    "keep_bits",
    "settings",
    "stored_format",
    "use_dtype",
]

FORMATS = ("nf4", "fp4", "int8")
"""NormalFloat 4 (Dettmers et al. 2023, arXiv 2305.14314), 4-bit floating point, and LLM.int8 (arXiv 2208.07339)."""


def check_format(quantize: str) -> None:
    """Refuse a format that is not there, and any where bitsandbytes is not.

    Raises:
        BaseLoadError: Says what would work.
    """
    if quantize not in FORMATS:
        raise BaseLoadError(
            f"quantize={quantize!r} is not one of {', '.join(FORMATS)}{suggest(str(quantize), FORMATS)}"
        )
    try:
        hush()
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise BaseLoadError(
            f"quantize={quantize!r} needs bitsandbytes, which cannot be imported ({error}): pip install 'adapterkit[quantize]'"
        ) from error


def settings(quantize: str, *, double_quant: bool) -> Any:
    """What transformers is given as ``quantization_config``; embeddings, norms and the head are left out of it by transformers."""
    from transformers import BitsAndBytesConfig

    if quantize == "int8":
        _hide(_CAST, "bitsandbytes.autograd._functions")
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type=quantize, bnb_4bit_use_double_quant=double_quant)


def use_dtype(model: Any, dtype: torch.dtype) -> None:
    """Have 4-bit layers compute in ``dtype``, the base's own.

    bitsandbytes takes float32 unless it is told otherwise, and puts a bias into what it computes in, for good.
    """
    for layer in _four_bit_layers(model):
        layer.compute_dtype, layer.compute_type_is_set = dtype, True
    model.config.quantization_config.bnb_4bit_compute_dtype = dtype


def keep_bits(model: nn.Module) -> None:
    """Keep bitsandbytes from packing 4-bit weights anew for inference.

    On a CPU with AVX512-BF16 it does so when a layer first answers in evaluation mode, and has no backward pass for what it then
    holds: gradients come out wrong without an error, and the scales are rounded to bfloat16 for good. The switch chooses a kernel
    and nothing else, so it is not put back when the model is.

    Raises:
        BaseLoadError: It has happened already.
    """
    for layer in _four_bit_layers(model):
        if getattr(getattr(layer.weight, "quant_state", None), "packing_format_for_cpu", False):
            raise BaseLoadError(
                "bitsandbytes has packed this model's 4-bit weights for inference, and they cannot be trained on any more: load it "
                "again and make it a Base before it first answers, or use Base(location, quantize=...)"
            )
        layer.support_avx512bf16_for_cpu = False


def format_of(model: nn.Module) -> str:
    """One of :data:`FORMATS`, or what transformers calls another kind; empty where nothing is quantized."""
    for parameter in model.parameters():
        kind = type(parameter).__name__
        if kind == "Params4bit":
            return str(parameter.quant_type)  # type: ignore[attr-defined]
        if kind == "Int8Params" and not parameter.is_floating_point():
            return "int8"
    return stored_format(getattr(model, "config", None))


def stored_format(config: Any) -> str:
    """The same, as a transformers configuration says it; its ``quantization_config`` is a mapping as it is read from a file."""
    found = getattr(config, "quantization_config", None)
    said = found if isinstance(found, dict) else dict(found.to_dict()) if found is not None else {}
    if said.get("load_in_4bit"):
        return str(said.get("bnb_4bit_quant_type", "fp4"))
    method = "int8" if said.get("load_in_8bit") else said.get("quant_method", "")
    return str(getattr(method, "value", method))


def bytes_of(model: nn.Module) -> int:
    """The memory of all weights, with what they are quantized by."""
    tensors = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    for weight in tuple(tensors.values()):
        state = getattr(weight, "quant_state", None)
        for part in state.as_dict().values() if state is not None else ():
            if hasattr(part, "nbytes"):
                tensors[id(part)] = part
    return sum(tensor.nbytes for tensor in tensors.values())


def hush() -> None:
    """Keep bitsandbytes, which PEFT and transformers import wherever it is installed, from asking for a kernel.

    :func:`keep_bits` leaves that kernel unused, and the message would stand on the first lines of every run.
    """
    _hide(_NO_KERNEL, "bitsandbytes.backends.cpu.ops")


def _four_bit_layers(model: nn.Module) -> Iterator[Any]:
    return (module for module in model.modules() if hasattr(module, "support_avx512bf16_for_cpu"))


_NO_KERNEL = "Failed to load CPU gemm_4bit_forward"
_CAST = "MatMul8bitLt: inputs will be cast"
"""Is said of each product, and is how LLM.int8 works."""


class _Without(logging.Filter):
    """Lets every message through but one."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(self.name)


def _hide(start: str, logger: str) -> None:
    found = logging.getLogger(logger)
    if not any(isinstance(one, _Without) and one.name == start for one in found.filters):
        found.addFilter(_Without(start))
