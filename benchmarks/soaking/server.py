"""``adapterkit serve`` as a process, and a disk that can be filled."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Self

import httpx
import psutil

from tests.support import EXAMPLE_BASE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

__all__ = ["ADMIN", "CALL", "USER", "Disk", "Process", "in_own_namespace"]

USER, ADMIN = "soak-user-key", "soak-admin-key"
CALL = "import sys; from adapterkit.cli import main; sys.exit(main())"
START = 120.0
"""Seconds until it has to listen."""


class Process:
    """A server of the example base and a store; killed when the block is left, if it still runs.

    Attributes:
        url: Where it listens.
        log: The file with its standard error.
    """

    def __init__(self, store: Path, log: Path, options: Sequence[str] = ()) -> None:
        self.log = log
        environment = {**os.environ, "ADAPTERKIT_API_KEY": USER, "ADAPTERKIT_ADMIN_KEY": ADMIN}
        command = [sys.executable, "-c", CALL, "serve", str(EXAMPLE_BASE), "--store", str(store), "--port", "0"]
        # through a pipe: the server writes its log also while it may write no file
        self._process = subprocess.Popen(
            [*command, *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
        )
        self.pid = self._process.pid
        self._copying = threading.Thread(target=self._copy, daemon=True)
        self._listens = threading.Event()
        self.url = ""
        self._copying.start()
        try:
            self._wait()
        except BaseException:
            self.kill()
            raise

    def _copy(self) -> None:
        with self.log.open("ab") as log, contextlib.closing(self._process.stdout) as out:
            for line in out:
                log.write(line)
                log.flush()
                found = re.search(rb" adapters at (http://[0-9.:]+); try", line)
                if found:
                    self.url = found[1].decode()
                    self._listens.set()

    def _wait(self) -> None:
        until = time.monotonic() + START
        while time.monotonic() < until and self._process.poll() is None:
            if self._listens.wait(0.1) and httpx.get(f"{self.url}/ready").status_code == 200:
                return
        raise RuntimeError(f"the server did not start:\n{self.log.read_text(errors='replace')[-4000:]}")

    def kill(self) -> None:
        """Kill it as ``kill -9`` does."""
        self._process.kill()
        self._process.wait()
        self._copying.join()

    def stop(self) -> int:
        """Tell it to stop, and wait; its exit status."""
        self._process.send_signal(signal.SIGTERM)
        status = self._process.wait(60)
        self._copying.join()
        return status

    def memory(self) -> int:
        """Bytes of memory that it has to itself and shares."""
        return int(psutil.Process(self.pid).memory_info().rss)

    def errors(self) -> list[str]:
        """Lines of its log that say that something of its own went wrong."""
        found = []
        for line in self.log.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError):
                if json.loads(line)["level"] in ("error", "critical"):
                    found.append(line)
            if line.startswith("Traceback"):
                found.append(line)
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self.kill()


class Disk:
    """The file system that a store is on, which can be filled to the last byte where it is this process's own.

    Attributes:
        folder: Where it is.
        is_own: Whether it can be filled.
    """

    def __init__(self, folder: Path, *, is_own: bool) -> None:
        self.folder, self.is_own = folder, is_own
        self._filler = folder / "filler"

    def __str__(self) -> str:
        return (
            "a file system of its own, filled to the last byte"
            if self.is_own
            else "not tried: nothing can be mounted here"
        )

    @classmethod
    @contextlib.contextmanager
    def mounted(cls, folder: Path, size: str) -> Iterator[Disk]:
        """A disk at an empty folder; of this process alone where that is possible, see :func:`in_own_namespace`."""
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "soak", str(folder)]
        is_own = OWN in os.environ and subprocess.run(command, check=False, capture_output=True).returncode == 0
        try:
            yield cls(folder, is_own=is_own)
        finally:
            if is_own:
                subprocess.run(["umount", "--lazy", str(folder)], check=True)

    def fill(self) -> None:
        """Leave no room."""
        with self._filler.open("ab", buffering=0) as file:
            size = 2**20
            while size:
                try:
                    file.write(bytes(size))
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    size //= 2

    def free(self) -> None:
        """Give the room back."""
        self._filler.unlink()


OWN = "ADAPTERKIT_SOAK_OWN_MOUNTS"


def in_own_namespace(module: str, arguments: Sequence[str]) -> None:
    """Go on as a process that may mount file systems which nobody else sees, where the kernel lets one be made.

    They are gone with the process, however it ends.
    """
    if OWN in os.environ or shutil.which("unshare") is None:
        return
    inside = ["unshare", "--user", "--map-root-user", "--mount"]
    if subprocess.run([*inside, "true"], check=False, capture_output=True).returncode == 0:
        os.environ[OWN] = "1"
        os.execvp("unshare", [*inside, sys.executable, "-m", module, *arguments])
