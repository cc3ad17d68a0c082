"""What is known of devices: memory, speed by their makers' sheets, and what an hour of them about costs."""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING

import attrs
import torch

from adapterkit.errors import UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CPU", "DEVICES", "PRICES_OF", "Device", "find_device"]

GIB = 2**30
PRICES_OF = "2026-03"
"""When an hour cost what the table says: on demand at RunPod, GCP (T4) and AWS (A10G). Prices of a market: give your own."""

CPU = "CPU"
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:g|gb|gib)", re.IGNORECASE)


@attrs.frozen(kw_only=True)
class Device:
    """A device that a run may be on.

    Attributes:
        name: What it is called.
        memory: Bytes that programs can have of it.
        flops: Products of matrices, in floating-point operations a second: in bfloat16 with sums in float32, without sparsity;
            in float16 where it has no bfloat16. None where nothing is known but its memory.
        bandwidth: Bytes a second between its memory and its cores.
        price: US dollars an hour, as of :data:`PRICES_OF`; None where nobody lends it.
        bf16: Whether it computes in bfloat16.
        generation: NVIDIA's compute capability, which decides how large cuBLAS's workspace is.
    """

    name: str
    memory: int
    flops: float | None = None
    bandwidth: float | None = None
    price: float | None = None
    bf16: bool = True
    generation: int = 8

    @property
    def is_cpu(self) -> bool:
        """Whether it is this machine's processor."""
        return self.name == CPU


def _gpu(
    name: str, gib: float, teraflops: float, gigabytes: float, price: float | None = None, generation: int = 8
) -> Device:
    return Device(
        name=name,
        memory=int(gib * GIB),
        flops=teraflops * 1e12,
        bandwidth=gigabytes * 1e9,
        price=price,
        bf16=generation >= 8,
        generation=generation,
    )


DEVICES = {
    device.name: device
    for device in (
        # GiB as the driver reports them, TFLOP/s and GB/s from NVIDIA's data sheets
        _gpu("T4", 14.6, 65, 320, 0.35, 7),
        _gpu("V100 16GB", 15.8, 125, 900, None, 7),
        _gpu("RTX 2080 Ti", 10.8, 54, 616, None, 7),
        _gpu("RTX 3060", 11.6, 25, 360),
        _gpu("RTX 3080", 9.7, 59, 760),
        _gpu("RTX 3090", 23.6, 71, 936, 0.22),
        _gpu("RTX A6000", 47.4, 155, 768),
        _gpu("A10", 22.1, 125, 600),
        _gpu("A10G", 22.1, 70, 600, 1.01),
        _gpu("A100 40GB", 39.4, 312, 1555),
        _gpu("A100 80GB", 79.2, 312, 1935, 1.19),
        _gpu("RTX 4060 Ti 16GB", 15.6, 44, 288),
        _gpu("RTX 4070", 11.6, 58, 504),
        _gpu("RTX 4080", 15.7, 97, 717),
        _gpu("RTX 4090", 23.5, 165, 1008, 0.34),
        _gpu("L4", 22.0, 121, 300, 0.44),
        _gpu("L40S", 44.4, 362, 864, 0.79),
        _gpu("RTX 6000 Ada", 47.4, 364, 960),
        _gpu("H100", 79.2, 989, 3350, 2.69, 9),
        _gpu("H200", 139.8, 989, 4800, 3.59, 9),
        _gpu("B200", 178.0, 2250, 8000, 5.98, 10),
        _gpu("RTX 5080", 15.5, 113, 960, None, 12),
        _gpu("RTX 5090", 31.4, 210, 1792, 0.69, 12),
    )
}


def find_device(name: str | None = None) -> Device:
    """The device of this name; without one, the first accelerator that is there, else this machine's processor.

    Args:
        name: Of :data:`DEVICES` (``"4090"`` will do), ``"cpu"``, ``"cuda"``, or a size such as ``"24GB"``, of which nothing but the
            memory is known.

    Raises:
        UnknownNameError: No device is called so; suggests one.
    """
    wanted = (name or ("cuda" if torch.cuda.is_available() else CPU)).strip()
    if wanted.casefold() == CPU.casefold():
        return this_cpu()
    if wanted.casefold().partition(":")[0] == "cuda":
        if not torch.cuda.is_available():
            raise UnknownNameError(
                "device", wanted, DEVICES, reason="PyTorch sees no GPU here; name one, such as 'RTX 4090'"
            )
        return _present(torch.device(wanted.casefold()))
    sized = _SIZE.fullmatch(wanted)
    if sized:
        return Device(name=wanted, memory=int(float(sized[1]) * GIB))
    found = _matching(wanted)
    if found is None:
        raise UnknownNameError("device", wanted, DEVICES, "A size will do as well, such as 24GB.")
    return found


def _matching(wanted: str) -> Device | None:
    """The shortest name that has all words of ``wanted`` in it: makers put more of them around, and users leave some out.

    A driver also says the memory of a card of which there is but one, as in ``"NVIDIA H100 80GB HBM3"``.
    """
    words = _words(wanted)
    for mine in (words, {word for word in words if not _SIZE.fullmatch(word)}):
        close = [one for one in DEVICES.values() if mine and mine <= _words(one.name)]
        if close:
            return min(close, key=lambda one: len(one.name))
    return None


def _words(name: str) -> set[str]:
    plain = re.sub(r"(?i)\b(nvidia|geforce|tesla|laptop|gpu|sxm\d?|hbm\d?e?|pcie)\b", " ", name.replace("-", " "))
    plain = re.sub(r"(?i)\b(rtx|gtx)(?=\d)", r"\1 ", plain)
    return {word.casefold() for word in plain.split()}


def _present(device: torch.device) -> Device:
    """A GPU that is there: its own memory, and the speed of its kind where that is known."""
    properties = torch.cuda.get_device_properties(device)
    gib = f"{round(properties.total_memory / GIB / 0.98)}GB"
    known = _matching(properties.name) or _matching(f"{properties.name} {gib}")
    own = Device(
        name=properties.name,
        memory=properties.total_memory,
        bf16=torch.cuda.is_bf16_supported(including_emulation=False),
        generation=properties.major,
    )
    return own if known is None else attrs.evolve(own, flops=known.flops, bandwidth=known.bandwidth, price=known.price)


def this_cpu() -> Device:
    """This machine's processor: its memory, and its speed as a product of matrices and a copy show it, in a fifth of a second."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    square, line = torch.rand(768, 768), torch.rand(2**23)
    return Device(
        name=CPU,
        memory=memory,
        flops=2 * 768**3 / _fastest(lambda: square @ square),
        bandwidth=2 * line.nbytes / _fastest(line.clone),
        bf16=False,
    )


def _fastest(work: Callable[[], object], seconds: float = 0.1) -> float:
    """The least time that a call takes: what slows a machine is other work."""
    best, end = float("inf"), time.perf_counter() + seconds
    work()
    while time.perf_counter() < end or best == float("inf"):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best
