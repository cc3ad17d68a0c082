"""Bakes in a process of its own, which is killed while it writes, or whose disk is full; or says how much memory it took.

Run as ``python -m tests.baking.bake_killing HOW BASE ADAPTER OUTPUT``.
"""

import os
import resource
import signal
import sys
from pathlib import Path

from adapterkit import Adapter, ArtifactError, Base
from adapterkit.baking import shards, streaming


def main(how: str, base: str, adapter: str, output: str) -> None:
    selection = Adapter.load(adapter)
    if how == "killed":
        written = []

        def deadly(file, shard, numbers):
            shards.write_shard(file, shard, numbers)
            written.append(file)
            if len(written) == 2:
                with file.open("rb+") as opened:  # in the middle of a file
                    opened.truncate(file.stat().st_size // 2)
                os.kill(os.getpid(), signal.SIGKILL)

        streaming.write_shard = deadly
    if how == "full":
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
    if how == "measured":  # what is imported, and what torch takes once, is not the model's
        small = Path(base).parent / "small"
        Base(small / "base").bake(Adapter.load(small / "adapter"), small / "out")
    before = peak()
    try:
        Base(base).bake(selection, output, max_shard_size="1GB" if how == "measured" else "20KB")
    except ArtifactError as error:
        sys.exit(f"refused: {error}")
    sys.stdout.write(str(peak() - before))


def peak() -> int:
    """The most memory so far, in bytes. What getrusage says begins with that of the process that started this one."""
    status = Path("/proc/self/status").read_text(encoding="utf-8") if sys.platform == "linux" else "VmHWM: 0"
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
