"""`make bench`: every performance figure beside its peer's, from the same run.

Each benchmark is a process of its own, one after the other, so that none is slowed by what another left behind. Times on a
shared machine are noisy: read the ratios, which come from interleaved runs.
"""

import json
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
BENCHMARKS = (
    "parameters",
    "imports",
    "residency",
    "training",
    "logits",
    "many",
    "merging",
    "extraction",
    "store",
    "serving",
)


def main() -> None:
    """Run all benchmarks, or those that are named, and print one table."""
    chosen = sys.argv[1:] or BENCHMARKS
    table = Table("what", "adapterkit", "peer", "ratio", "bar", "", title="adapterkit beside its peers")
    missed = 0
    for name in chosen:
        print(f"running {name} …", file=sys.stderr, flush=True)
        out = subprocess.run(
            [sys.executable, str(HERE / f"{name}.py")], check=True, stdout=subprocess.PIPE, text=True
        ).stdout
        for line in out.splitlines():
            figure = json.loads(line)
            missed += not figure["met"]
            table.add_row(
                figure["what"],
                figure["ours"],
                figure["peer"],
                figure["ratio"],
                figure["bar"],
                "" if figure["met"] else "MISSED",
            )
    Console(width=150).print(table)
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
