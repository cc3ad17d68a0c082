"""Starts a command in several processes of this machine that share its run."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from typing import TYPE_CHECKING, Any

from adapterkit.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["is_main", "share", "start"]

COMMAND = "import sys; from adapterkit.cli import main; sys.exit(main())"
GRACE = 20.0
"""How many seconds the others have to end by themselves once one has failed."""
POLL = 0.05
"""Seconds between two looks at the processes."""


def share(arguments: Sequence[str], count: int) -> None:
    """Have ``count`` processes run this command; nothing happens in one that was started for it.

    Raises:
        ConfigError: A launcher has started another number of processes.
        SystemExit: They have ended; with their exit code.
    """
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if count in (1, started):
        return
    if started > 1:
        problem = (
            f"processes: {count} are asked for, and a launcher has started {started} already; leave the option out"
        )
        raise ConfigError("options of train do not fit", [problem])
    raise SystemExit(start(arguments, count))


def is_main() -> bool:
    """Whether this process is the one that prints."""
    return os.environ.get("RANK", "0") == "0"


def start(arguments: Sequence[str], count: int) -> int:
    """Run ``adapterkit`` with ``arguments`` in ``count`` processes.

    The first has this process's input and output. What another says is shown if it fails and the first one cannot say why. A
    signal is handed on to each of them once. When one fails, all are ended.

    Returns:
        The exit code: the first one's where that has failed, else that of who has.
    """
    with contextlib.ExitStack() as stack:
        said = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(count)]
        port = _free_port()
        processes: list[subprocess.Popen[bytes]] = []
        stack.callback(_kill, processes)
        for rank, file in enumerate(said):
            processes.append(_process(arguments, rank, count, port, file))
        with _handing_on(processes) as signals:
            failed = _wait(processes)
            _wait_for_all(processes, None if signals else GRACE)
        _kill(processes)
        main = processes[0].returncode
        if failed and main <= 0:  # it was ended, and has said nothing of the reason
            said[failed].seek(0)
            text = said[failed].read().decode(errors="replace")
            print(f"process {failed} of {count} has failed:\n{text}", end="", file=sys.stderr)
    code = main or (processes[failed].returncode if failed else 0)
    return code if code >= 0 else 128 - code  # as shells number those that a signal has ended


def _process(arguments: Sequence[str], rank: int, count: int, port: int, said: Any) -> subprocess.Popen[bytes]:
    environment = {
        "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // count)),
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
    }
    streams = {} if rank == 0 else {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": said}
    # -P: as in an installed command, nothing is imported from the folder that this is called in.
    # A session of its own: a terminal sends Ctrl-C to this process alone, which hands it on
    command = [sys.executable, "-P", "-c", COMMAND, *arguments]
    return subprocess.Popen(command, env=environment, start_new_session=True, **streams)  # noqa: S603 - our own command


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


@contextlib.contextmanager
def _handing_on(processes: Sequence[subprocess.Popen[bytes]]) -> Iterator[list[int]]:
    """Within this block signals that would end this process go to the others instead; gives the list of those that came."""
    came: list[int] = []

    def hand_on(number: int, frame: Any) -> None:  # noqa: ARG001 - what signal handlers take
        came.append(number)
        for process in processes:
            process.send_signal(number)

    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    before = {number: signal.signal(number, hand_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(processes: Sequence[subprocess.Popen[bytes]]) -> int | None:
    """Wait until all have ended or one has failed; which one, if any."""
    while True:
        codes = [process.poll() for process in processes]
        failed = next((rank for rank, code in enumerate(codes) if code), None)
        if failed is not None or None not in codes:
            return failed
        time.sleep(POLL)


def _wait_for_all(processes: Sequence[subprocess.Popen[bytes]], seconds: float | None) -> None:
    end = time.monotonic() + (seconds if seconds is not None else float("inf"))
    while any(process.poll() is None for process in processes) and time.monotonic() < end:
        time.sleep(POLL)


def _kill(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.wait()
