"""``python -m adapterkit.testing.hub [PORT]``: run a test Hub until Ctrl-C, and print what a client is to set."""

from __future__ import annotations

import sys

from . import Hub

if __name__ == "__main__":
    with Hub(port=int(sys.argv[1]) if len(sys.argv) > 1 else 0) as hub:
        for name, value in hub.environment().items():
            print(f"export {name}={value}", flush=True)  # noqa: T201 - it is what this command gives
        try:
            hub.stopping.wait()
        except KeyboardInterrupt:
            sys.exit(0)
