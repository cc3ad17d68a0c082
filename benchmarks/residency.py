"""Selecting and loading one of up to 64 resident adapters, beside PEFT's `set_adapter` and `load_adapter`."""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from figures import human, report, seconds
from peft import PeftModel
from transformers import AutoModelForCausalLM

from adapterkit import Adapter, Base

BASE = Path(__file__).parent.parent / "examples" / "base"
RESIDENT = 64


def make_folders(base: Base, root: Path) -> list[Path]:
    """64 different adapters on disk, rank 16 on all linear layers, as both sides read them."""
    rows = [{"prompt": "hello", "completion": "world"}]
    first = base.train(rows, method="lora", rank=16, max_steps=1)
    base.unload(first)
    folders = []
    for number in range(RESIDENT):
        stream = torch.Generator().manual_seed(number)
        tensors = {name: torch.randn(tensor.shape, generator=stream) * 0.01 for name, tensor in first.tensors.items()}
        folders.append(Adapter(first.method, first.config, tensors, first.manifest).save(root / f"adapter-{number}"))
    return folders


def measure(
    load: Callable[[Path], object], select: Callable[[int], object], folders: list[Path], rounds: int
) -> tuple[list[float], dict[int, float]]:
    """Seconds to load each, and to select among 1 and among 64."""
    loads, selections = [], {}
    for count, folder in enumerate(folders, start=1):
        loads.append(seconds(partial(load, folder)))
        if count in (1, RESIDENT):
            # the first and the last in turn, as requests for two adapters would
            selections[count] = median(seconds(partial(select, number % 2 * (count - 1))) for number in range(rounds))
    return loads, selections


def ours(base: Base, folders: list[Path]) -> tuple[list[float], dict[int, float]]:
    """`Base.load` and `Base.use`."""
    adapters: list[Adapter] = []
    return measure(lambda folder: adapters.append(base.load(folder)), lambda n: base.use(adapters[n]), folders, 200)


def peers(model: Any, folders: list[Path]) -> tuple[list[float], dict[int, float]]:
    """`PeftModel.load_adapter` and `set_adapter`; the first load is the one that wraps the model."""
    wrapped: list[PeftModel] = []

    def load(folder: Path) -> None:
        if wrapped:
            wrapped[0].load_adapter(folder, adapter_name=folder.name)
        else:
            wrapped.append(PeftModel.from_pretrained(model, folder, adapter_name=folder.name))

    return measure(load, lambda n: wrapped[0].set_adapter(folders[n].name), folders, 10)


def main() -> None:
    """One thread: small work is not made faster by more, only noisier."""
    torch.set_num_threads(1)
    base = Base(BASE)
    with tempfile.TemporaryDirectory() as root:
        folders = make_folders(base, Path(root))
        base.load(folders[0])  # once, so that nothing is imported or allocated for the first time below
        base.unload(base.resident[0])
        loads, selections = ours(base, folders)
        model = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
        peer_loads, peer_selections = peers(model, folders)
    first, last = median(loads[:8]), median(loads[-8:])
    peer_first, peer_last = median(peer_loads[:8]), median(peer_loads[-8:])
    one, many = selections[1], selections[RESIDENT]
    report(
        "select an adapter, 64 resident",
        human(many),
        human(peer_selections[RESIDENT]),
        f"{peer_selections[RESIDENT] / many:,.0f}×",
        "under 1 ms; 100×",
        met=many < 1e-3 and peer_selections[RESIDENT] >= 100 * many,
    )
    report(
        "select among 64, over among 1",
        f"{many / one:.2f}",
        f"{peer_selections[RESIDENT] / peer_selections[1]:.2f}",
        "",
        "at most 1 (1.25 with noise)",
        met=many <= 1.25 * one,
    )
    report(
        "load an adapter, 64 resident",
        human(last),
        human(peer_last),
        f"{peer_last / last:.0f}×",
        "10×",
        met=peer_last >= 10 * last,
    )
    report(
        "load the last 8 of 64, over the first 8",
        f"{last / first:.2f}",
        f"{peer_last / peer_first:.2f}",
        "",
        "at most 1.2",
        met=last <= 1.2 * first,
    )


if __name__ == "__main__":
    main()
