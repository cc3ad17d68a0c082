"""`make soak`: half an hour of requests for 500 adapters while everything around them changes or fails.

`adapterkit serve` runs as a process of its own, with budgets so small that adapters are put out of memory and requests are
interrupted all the time. Clients ask for adapters by Zipf's law, stacks and blends among them; some leave early, some answers are
given up at the deadline. Meanwhile aliases move, adapters come, go and are replaced, and broken ones are sent. Twice the disk is
full, where a file system can be mounted for that (Linux, `unshare`). Greedy answers are compared with one another, and a sample of
them with the base's own answers, one prompt at a time.

    python -m benchmarks.soak --seconds 120 --json
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from rich.console import Console
from rich.table import Table

from adapterkit import Store

from .soaking.changes import ALIASED, CHURNED, LATE, Changes
from .soaking.library import DTYPE, Library
from .soaking.results import Results, quantile
from .soaking.server import ADMIN, CALL, USER, Disk, Process, in_own_namespace
from .soaking.traffic import Names, Traffic, name_of
from .soaking.truth import Truth

if TYPE_CHECKING:
    from collections.abc import Sequence

OPTIONS = (
    *("--max-batch", "12", "--kv-memory", "6MB", "--adapter-memory", "8MB", "--host-memory", "16MB", "--dtype", DTYPE),
    *("--timeout", "10", "--max-queue-per-adapter", "16", "--drain", "20"),
)
DISK = "1g"
CLIENTS = 24
VERSIONS = 3
MOST_GROWTH = 0.05
SAMPLE = 400
"""Greedy answers that are compared with the base's own."""


def main(arguments: Sequence[str]) -> int:
    """Run it, and say what came of it; 1 where something was not as it should be."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1800.0, help="how long requests are sent")
    parser.add_argument("--adapters", type=int, default=500)
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--sample", type=int, default=SAMPLE, help="answers that are compared with the base's own")
    parser.add_argument("--json", action="store_true", help="print JSON")
    asked = parser.parse_args(arguments)
    in_own_namespace("benchmarks.soak", arguments)
    with tempfile.TemporaryDirectory(prefix="adapterkit-soak-") as name:
        folder = Path(name)
        (folder / "disk").mkdir()
        with Disk.mounted(folder / "disk", DISK) as disk:
            told = Soak(folder, disk, asked).run()
    if asked.json:
        print(json.dumps(told, indent=2))
    else:
        _print(told)
    return 1 if told["problems"] else 0


class Soak:
    """One soak, in a folder of its own."""

    def __init__(self, folder: Path, disk: Disk, asked: argparse.Namespace) -> None:
        self._asked, self._library, self._truth, self._results = asked, Library(), Truth(), Results()
        self._disk, self._store = disk, disk.folder / "store"
        self._uploads, self._log = folder / "uploads", folder / "log"
        self._uploads.mkdir()
        self._versions: dict[str, list[int]] = {}

    def run(self) -> dict[str, Any]:
        """All of it; what is to be told."""
        say(f"adding {self._asked.adapters} adapters to a store; {self._disk}")
        self._fill(Store(self._store))
        with Process(self._store, self._log, [*OPTIONS, "--allow-source", str(self._uploads)]) as process:
            try:
                asyncio.run(self._soak(process))
            except BaseException:
                say(self._log.read_text(encoding="utf-8", errors="replace")[-4000:])
                raise
            figures = _figures(httpx.get(f"{process.url}/metrics", headers=as_who(USER)).text)
            if (status := process.stop()) not in (0, -15):
                self._results.unexpected.append(f"the server ended with {status} when it was told to stop")
            self._results.unexpected += process.errors()[:20]
        command = [sys.executable, "-c", CALL, "store", "verify", "--store", str(self._store)]
        verified = subprocess.run(command, check=False, capture_output=True, text=True)
        if verified.returncode:
            self._results.unexpected.append(f"store verify: {verified.stdout}{verified.stderr}")
        self._compare()
        return self._told(figures)

    def _fill(self, store: Store) -> None:
        for number in range(self._asked.adapters):
            store.add(self._library.made(number), name_of(number))
            self._library.digest(((number, 1.0),))
        for place, name in enumerate(ALIASED):
            self._versions[name] = [1000 + place * 10 + version for version in range(VERSIONS)]
            for number in self._versions[name]:
                store.add(self._library.made(number), name)
                self._library.digest(((number, 1.0),))
            store.promote(f"{name}@1", "production")
            self._truth.settled(f"{name}@production", self._versions[name][0])
        for name in (*CHURNED, LATE):
            self._truth.settled(name, None)

    async def _soak(self, process: Process) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=self._asked.clients * 2)
        made: dict[str, Any] = {"base_url": process.url, "timeout": 60, "limits": limits}
        async with (
            httpx.AsyncClient(headers=as_who(USER), **made) as users,
            httpx.AsyncClient(headers=as_who(ADMIN), **made) as admin,
        ):
            names = Names(self._asked.adapters, (*(f"{name}@production" for name in ALIASED), *CHURNED, LATE))
            traffic = Traffic(users, self._library, names, self._truth, self._results)
            changes = Changes(admin, self._library, self._uploads, self._truth, self._results, self._versions)
            stop = asyncio.Event()
            work = [
                *(traffic.client(number, stop) for number in range(self._asked.clients)),
                *(task(stop) for task in (changes.aliases, changes.guests, changes.pins, changes.hostile)),
                self._watch(process, stop),
                self._bursts(traffic, stop),
            ]
            async with asyncio.TaskGroup() as group:
                for one in work:
                    group.create_task(one)
                part = self._asked.seconds / 10
                for full in (False, False, False, True, False, False, True, False, False, False):
                    if full and self._disk.is_own:
                        await changes.full_disk(self._disk, part)
                    else:
                        await asyncio.sleep(part)
                stop.set()

    async def _watch(self, process: Process, stop: asyncio.Event) -> None:
        """Look at the server's memory each second, and whether this process itself was late for that."""
        began, before, said = time.monotonic(), 0.0, 0.0
        while not stop.is_set():
            now, size = time.monotonic() - began, process.memory()
            self._results.memory.append((now, size))
            self._results.lag, before = max(self._results.lag, now - before - 1), now
            if now - said > 30:
                said = now
                say(f"{now:5.0f} s: {sum(self._results.outcomes.values())} requests, {size / 2**20:.0f} MiB")
            await asyncio.sleep(1)

    async def _bursts(self, traffic: Traffic, stop: asyncio.Event) -> None:
        """Now and then more at once than the server lets wait."""
        chance = random.Random("bursts")
        while not stop.is_set():
            await asyncio.gather(*(traffic.one(chance) for _ in range(60)))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 20)

    def _compare(self) -> None:
        """Have the base answer a sample of the requests by itself."""
        keys = list(self._results.answers)
        chosen = random.Random("sample").sample(keys, min(self._asked.sample, len(keys)))
        say(f"comparing {len(chosen)} of {len(keys)} different answers with the base's own")
        self.compared = len(chosen)
        for key in sorted(chosen, key=lambda one: one.parts):
            text = self._library.answer(key.parts, key.prompt, is_chat=key.is_chat, tokens=key.tokens)
            said = self._results.answers[key]
            if text != said.strip():  # the base itself leaves whitespace around an answer out
                self._results.wrong.append(f"{key}: {said!r}, and by itself {text!r}")

    def _told(self, figures: dict[str, float]) -> dict[str, Any]:
        results, seconds = self._results, self._asked.seconds
        growth = results.growth()
        problems = [*results.wrong[:20], *results.unexpected]
        if growth > MOST_GROWTH:
            problems.append(f"memory grew by {growth:.1%} from the second quarter to the last")
        return {
            "seconds": seconds,
            "adapters": self._asked.adapters,
            "clients": self._asked.clients,
            "full disk": str(self._disk),
            "requests": dict(sorted(results.outcomes.items())),
            "requests per second": round(sum(results.outcomes.values()) / seconds, 1),
            "tokens per second": round(results.tokens / seconds, 1),
            "latency, seconds": _quantiles(results.latencies),
            "time to first token of streams, seconds": _quantiles(results.firsts),
            "of which this process itself, at most": round(results.lag, 3),
            "changes": dict(sorted(results.changes.items())),
            "server": figures,
            "memory, MiB": {
                "first": round(results.memory[0][1] / 2**20, 1),
                "most": round(max(size for _, size in results.memory) / 2**20, 1),
                "last": round(results.memory[-1][1] / 2**20, 1),
            },
            "growth": round(growth, 4),
            "greedy answers": {
                "different": len(results.answers),
                "asked again": results.repeated,
                "compared with the base's own": self.compared,
                "wrong": len(results.wrong),
            },
            "problems": problems,
        }


def as_who(key: str) -> dict[str, str]:
    """The header of who has this key."""
    return {"authorization": f"Bearer {key}"}


def say(text: str) -> None:
    """Talk goes to standard error."""
    print(text, file=sys.stderr, flush=True)


def _quantiles(values: list[float]) -> dict[str, float]:
    return {f"p{share}": round(quantile(values, share / 100), 3) for share in (50, 95, 99)}


def _figures(text: str) -> dict[str, float]:
    """Loads, evictions and interruptions, of the server's own figures."""
    found = re.findall(r"^(adapterkit_(?:loads|evictions|interrupted)_total)\{?([^}\n]*)\}? (\S+)$", text, re.MULTILINE)
    return {
        f"{name.removeprefix('adapterkit_').removesuffix('_total')} {labels}".strip(): float(value)
        for name, labels, value in found
    }


def _print(told: dict[str, Any]) -> None:
    table = Table("", "", title="soak", show_header=False)
    for name, value in told.items():
        if name != "problems":
            shown = ", ".join(f"{key}: {one}" for key, one in value.items()) if isinstance(value, dict) else str(value)
            table.add_row(name, shown)
    Console(width=150).print(table)
    for problem in told["problems"]:
        print(problem)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
