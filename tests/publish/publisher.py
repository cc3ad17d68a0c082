"""Publishes in a process of its own for each line that it reads, `SEED TAG`, and says its number: tests kill it."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from adapterkit import Adapter, publish

ABOUT = {"license": "apache-2.0", "base_model": "org/tiny"}


def main(folders, url):
    for line in sys.stdin:
        seed, tag = line.split()
        child = os.fork()
        if not child:
            try:
                publish(Adapter.load(Path(folders) / seed), url, tag=tag, **ABOUT)
            except Exception as error:  # noqa: BLE001 - the parent reads what it was
                sys.stderr.write(f"{type(error).__name__}: {error}\n")
                os._exit(1)
            os._exit(0)
        print(child, flush=True)  # noqa: T201
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
