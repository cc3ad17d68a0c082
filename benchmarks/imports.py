"""How long a start takes: `import adapterkit` and `adapterkit plugins`, beside importing torch, transformers and peft."""

import subprocess
import sys
from statistics import median

from figures import human, report, seconds

RUNS = 5
PEER = "import torch, transformers, peft"
OURS = {
    "import adapterkit": "import adapterkit; import sys; assert not {'torch', 'transformers', 'peft'} & set(sys.modules)",
    "adapterkit plugins": (
        "import contextlib, os, sys; from adapterkit.cli import main\n"
        "with contextlib.redirect_stdout(open(os.devnull, 'w')): assert main(['plugins']) == 0\n"
        "assert not {'torch', 'transformers', 'peft'} & set(sys.modules)"
    ),
}


def run(code: str) -> float:
    """A fresh interpreter that runs ``code``."""
    return seconds(lambda: subprocess.run([sys.executable, "-c", code], check=True))


def main() -> None:
    """Interleave, so that a slow moment of the machine falls on all."""
    for code in (PEER, *OURS.values()):
        run(code)  # once for the disk cache
    times: dict[str, list[float]] = {PEER: [], **{name: [] for name in OURS}}
    for _ in range(RUNS):
        times[PEER].append(run(PEER))
        for name, code in OURS.items():
            times[name].append(run(code))
    peer = median(times[PEER])
    for name in OURS:
        mine = median(times[name])
        report(
            f"{name} (peer: {PEER})",
            human(mine),
            human(peer),
            f"1/{peer / mine:.0f}",
            "at most 1/20",
            met=mine * 20 <= peer,
        )


if __name__ == "__main__":
    main()
