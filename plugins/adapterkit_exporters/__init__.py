"""Forms in which other programs read adapters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapterkit import Exporter, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["adapterkit_exporters"]


@hookimpl
def adapterkit_exporters() -> Iterator[Exporter]:
    """``portable``, ``vllm``, ``gguf`` and ``mlx``."""
    from .gguf_file import write_gguf
    from .mlx import write_mlx
    from .portable import write_for_vllm, write_portable

    yield Exporter(name="portable", export=write_portable, summary="plain LoRA in PEFT's files, for every reader")
    yield Exporter(name="vllm", export=write_for_vllm, summary="the same, held to what vLLM's loader demands")
    yield Exporter(
        name="gguf", export=write_gguf, summary="a LoRA for llama.cpp and Ollama (once GGML)", requires="gguf"
    )
    yield Exporter(name="mlx", export=write_mlx, summary="a LoRA for mlx-lm, on Apple silicon")
