"""Bakes in a process of its own, which is killed while it writes, or whose disk is full; or says how much memory it took.

Run as ``python -m tests.baking.bake_killing HOW BASE ADAPTER OUTPUT``.
"""

import os
import resource
import signal
import sys

import torch

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
    torch.ones(64, 64) @ torch.ones(64, 64)  # what the first product takes is not the model's
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        Base(base).bake(selection, output, max_shard_size="1GB" if how == "measured" else "20KB")
    except ArtifactError as error:
        sys.exit(f"refused: {error}")
    sys.stdout.write(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))


if __name__ == "__main__":
    main(*sys.argv[1:])
