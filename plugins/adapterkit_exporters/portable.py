"""Plain LoRA in PEFT's files: one rank, a whole alpha equal to it, no patterns, nothing beside lora_A and lora_B."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapterkit import SelectionError

if TYPE_CHECKING:
    from adapterkit import Export

__all__ = ["VLLM_RANKS", "write_for_vllm", "write_portable"]

VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes for ``--max-lora-rank``; an adapter may have any rank up to it."""


def write_portable(job: Export) -> str:
    """PEFT's two files, with a manifest and a card that other readers pass over."""
    job.plain().save(job.folder, registry=job.registry)
    return "any reader of PEFT's LoRA takes the folder as it is"


def write_for_vllm(job: Export) -> str:
    """The same, for vLLM.

    Raises:
        SelectionError: vLLM would refuse it.
    """
    plain = job.plain()
    rank = next(iter(job.factors().values())).rank
    room = next((one for one in VLLM_RANKS if one >= rank), None)
    if room is None:
        raise SelectionError(
            f"the adapter's rank is {rank}, and vLLM's limit is {VLLM_RANKS[-1]}: merge it with strategy 'svd' and a lower rank"
        )
    outside = sorted(site for site in job.factors() if not _is_in_a_block(site))
    if outside:
        raise SelectionError(
            f"the adapter changes {outside[0]!r}: vLLM is known to take updates of the layers inside the model's blocks only"
        )
    plain.save(job.folder, registry=job.registry)
    served = plain.manifest.base.name or "BASE"
    return f"vllm serve {served} --enable-lora --max-lora-rank {room} --lora-modules NAME=FOLDER"


def _is_in_a_block(site: str) -> bool:
    return any(part.isdigit() for part in site.split("."))
