"""Training tokens per second on a GPU beside PEFT, and PEFT with Liger: an 8B base, LoRA r16 on all linear layers, 4 × 2048 tokens.

The base has the shape of Llama 3.1 8B and random weights in bfloat16, the same for each; adapters are in float32. Every step
sees the same four rows of one length, every token trained; steps, learning rate and AdamW are the same too. The peers run as
fast as they do: autocast, the fused AdamW, rows that lie on the GPU already, no clipping, no look at the loss in between; ours
is `Base.train` with all that it does at a step. `--tiny` runs the same on a CPU, where there is nothing to measure and no Liger,
to see that it runs.
"""

import argparse
import gc
import json
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import attrs
import peft
import torch
from figures import report
from qlora_memory import GIB, LLAMA_8B, TINY
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from adapterkit import Base, hookimpl
from adapterkit.data.dataset import encode_rows
from adapterkit.data.rendering import Renderer
from adapterkit.registry import Registry

RANK, ALPHA, RATE = 16, 32.0, 1e-4
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
WARM, STEPS = 4, 10
"""Steps before the clock runs, and under it."""
PEERS = ("PEFT", "PEFT + Liger")


@attrs.frozen
class Measured:
    """What one contestant did: tokens per second, peak GiB, first and last loss, and the norm of the last gradient."""

    tokens_per_second: float
    peak: float
    first_loss: float
    last_loss: float
    grad_norm: float


def llama(shape: dict[str, int], device: torch.device) -> Any:
    """The base: the same weights each time, of a size at which activations neither grow nor vanish."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with device:
            return LlamaForCausalLM(LlamaConfig(**shape, max_position_embeddings=8192)).eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(torch.float32)


def texts(tokenizer: Any, count: int, length: int) -> list[dict[str, str]]:
    """Rows that are longer than ``length`` tokens, no two alike."""
    words = [tokenizer.decode([token]) for token in range(1000, 4000)]
    order = torch.randint(len(words), (count, 2 * length), generator=torch.Generator().manual_seed(0)).tolist()
    return [{"text": "".join(words[number] for number in row)} for row in order]


def synchronized(device: torch.device) -> float:
    """The time at which the device has done all that it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def fresh(device: torch.device) -> None:
    """Nothing left of the one before."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak(device: torch.device) -> float:
    return torch.cuda.max_memory_allocated() / GIB if device.type == "cuda" else 0.0


class Clock:
    """Notes when each step is logged, which is when its loss is known: the device has done it."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.records: list[dict[str, Any]] = []

    @hookimpl
    def adapterkit_train_logged(self, record: dict[str, Any]) -> None:
        """After every step, and after evaluations."""
        if "loss" in record:
            self.times.append(time.perf_counter())
            self.records.append(record)


def ours(model: Any, tokenizer: Any, rows: list[dict[str, str]], batch: int, length: int, **options: Any) -> Measured:
    """Through `Base.train`."""
    clock, registry = Clock(), Registry()
    registry.add(clock)
    base = Base(model, tokenizer=tokenizer, registry=registry)
    base.train(
        rows,
        method="lora",
        rank=RANK,
        alpha=ALPHA,
        target_modules=TARGETS,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        max_grad_norm=1e6,  # looked at, but not clipped
        batch_size=batch,
        max_length=length,
        max_steps=WARM + STEPS,
        logging_steps=1,
        bf16=True,
        **options,
    )
    took = median(after - before for before, after in zip(clock.times[WARM:-1], clock.times[WARM + 1 :], strict=True))
    first, last = clock.records[0], clock.records[-1]
    return Measured(batch * length / took, peak(base.device), first["loss"], last["loss"], last["grad_norm"])


def peers(model: Any, ids: torch.Tensor, device: torch.device) -> Measured:
    """Through PEFT, in the loop that is fastest."""
    config = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=TARGETS, task_type="CAUSAL_LM")
    model = peft.get_peft_model(model, config).train()
    trained = [one for one in model.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.0, fused=True)
    losses, times = [], [synchronized(device)]
    for step in range(1, WARM + STEPS + 1):
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16):
            loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
        if step in (WARM, WARM + STEPS):
            times.append(synchronized(device))
    norm = torch.nn.utils.get_total_norm([one.grad for one in trained])
    took = (times[-1] - times[-2]) / STEPS
    return Measured(ids.numel() / took, peak(device), losses[0].item(), losses[-1].item(), norm.item())


def said(name: str, found: Measured) -> Measured:
    print(json.dumps({"what": name, **attrs.asdict(found)}), file=sys.stderr, flush=True)
    return found


def agrees(found: Measured, others: list[Measured]) -> bool:
    """Whether all learn the same thing: equal losses, and a gradient that is one."""
    same = [
        abs(getattr(found, name) / getattr(other, name) - 1) for other in others for name in ("first_loss", "last_loss")
    ]
    return max(same) < 0.02 and all(one.grad_norm > 0 for one in (found, *others))


def main() -> None:
    """One line for each peer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="a small base on the CPU")
    parser.add_argument("--tokenizer", default="examples/base", help="any tokenizer: the words do not matter")
    parser.add_argument("--without", nargs="*", default=[], choices=PEERS, help="peers to leave out")
    chosen = parser.parse_args()
    device, shape, batch, length = torch.device("cuda"), LLAMA_8B, 4, 2048
    if chosen.tiny:
        device, shape, batch, length = torch.device("cpu"), TINY, 2, 64
    tokenizer = AutoTokenizer.from_pretrained(chosen.tokenizer)
    rows = texts(tokenizer, batch, length)
    encoded = encode_rows(rows, Renderer(tokenizer, length), Registry()).examples
    ids = torch.tensor([one.input_ids for one in encoded], device=device)

    def measured(name: str, run: Callable[[Any], Measured]) -> Measured:
        fresh(device)
        return said(name, run(llama(shape, device)))

    mine = measured("adapterkit", lambda model: ours(model, tokenizer, rows, batch, length))
    theirs: dict[str, Measured] = {}
    for name in PEERS:
        if name in chosen.without or (chosen.tiny and "Liger" in name):
            continue
        if "Liger" in name:
            from liger_kernel.transformers import apply_liger_kernel_to_llama

            apply_liger_kernel_to_llama()  # changes transformers for good: it comes last
        theirs[name] = measured(name, lambda model: peers(model, ids, device))
    for name, one in theirs.items():
        ratio = mine.tokens_per_second / one.tokens_per_second
        report(
            f"LoRA r{RANK} of an 8B base, all linear layers, {batch} × {length} tokens",
            f"{mine.tokens_per_second:,.0f} tokens/s, {mine.peak:.1f} GiB",
            f"{one.tokens_per_second:,.0f} tokens/s, {one.peak:.1f} GiB ({name})",
            f"{ratio:.2f}×",
            "at least 1×, the same losses",
            met=ratio >= 1 and agrees(mine, [one]),
        )


if __name__ == "__main__":
    main()
