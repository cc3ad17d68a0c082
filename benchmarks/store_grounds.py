"""What the store's index should stand on: SQLite, or plain files with a lock, a rename and fsync.

Sixteen processes add versions, move an alias by compare-and-set and resolve it, while one of them after the other is killed with
SIGKILL at random moments and another takes its place. Every change that a process was told is done is told to the parent, which
looks for it in the end: one that is not there is lost. Prints a line of JSON for each ground; what was decided by it stands in
docs/explanation/how-the-store-works.md.
"""

import fcntl
import json
import os
import random
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from adapterkit.errors import UnknownNameError
from adapterkit.store import aliases, journal, versions
from adapterkit.store.index import Index

PROCESSES = 16
SECONDS = 20
NAMES = [f"name{number}" for number in range(100)]
EACH = 100
"""Versions of each name before it begins: 10,000 together."""
State = dict[str, Any]
ROW = {"digest": "0" * 64, "manifest": "0" * 64, "bytes": 0, "who": "bench", "origin": ""}


class InSqlite:
    """The index as the store has it."""

    def __init__(self, folder: Path) -> None:
        self.index = Index(folder / "index.sqlite")

    def fill(self) -> None:
        """Add so many versions."""
        with self.index.writing() as db:
            for name in NAMES:
                for _ in range(EACH):
                    self._add(db, name, "")

    def add(self, name: str, why: str) -> None:
        """Add a version."""
        with self.index.writing() as db:
            self._add(db, name, why)

    def move(self, name: str, why: str) -> None:
        """Let the alias point at the newest version."""
        with self.index.writing() as db:
            aliases.promote(db, name, "live", aliases.UNSET, why, "bench")

    def resolve(self, name: str) -> int:
        """Where the alias points."""
        with self.index.reading() as db:
            return versions.find(db, f"{name}@live").number

    def whys(self) -> set[str]:
        """What every change in the journal says."""
        with self.index.reading() as db:
            return {entry.why for entry in journal.entries(db)}

    def _add(self, db: sqlite3.Connection, name: str, why: str) -> None:
        (last,) = db.execute("SELECT coalesce(max(number), 0) FROM versions WHERE name = ?", (name,)).fetchone()
        at = journal.append(db, action="add", name=name, who="bench", after=last + 1, why=why).at
        row = {**ROW, "name": name, "number": last + 1, "created": at, "why": why}
        db.execute(f"INSERT INTO versions ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", [*row.values()])


class InFiles:
    """A JSON file for each name, with its versions, aliases and journal; written anew for each change and renamed into place."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fill(self) -> None:
        """Add so many versions."""
        for name in NAMES:
            with self._changing(name) as state:
                for _ in range(EACH):
                    self._append(state, "")

    def add(self, name: str, why: str) -> None:
        """Add a version."""
        with self._changing(name) as state:
            self._append(state, why)

    def move(self, name: str, why: str) -> None:
        """Let the alias point at the newest version."""
        with self._changing(name) as state:
            newest = len(state["versions"])
            if state["aliases"].get("live") != newest:
                state["aliases"]["live"] = newest
                state["journal"].append({"action": "promote", "after": newest, "why": why})

    def resolve(self, name: str) -> int:
        """Where the alias points."""
        return self._read(name)["aliases"]["live"]

    def whys(self) -> set[str]:
        """What every change in the journal says."""
        return {entry["why"] for name in NAMES for entry in self._read(name)["journal"]}

    def _append(self, state: State, why: str) -> None:
        state["versions"].append({**ROW, "why": why})
        state["journal"].append({"action": "add", "after": len(state["versions"]), "why": why})

    def _read(self, name: str) -> State:
        try:
            return json.loads((self.folder / f"{name}.json").read_bytes())
        except FileNotFoundError:
            return {"versions": [], "aliases": {}, "journal": []}

    @contextmanager
    def _changing(self, name: str) -> Iterator[State]:
        with (self.folder / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            state = self._read(name)
            rows = len(state["journal"])
            yield state
            if len(state["journal"]) == rows:
                return
            made = self.folder / f"{name}.new"
            with made.open("w") as out:
                json.dump(state, out)
                out.flush()
                os.fsync(out.fileno())
            made.replace(self.folder / f"{name}.json")
            descriptor = os.open(self.folder, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)


def work(ground: InSqlite | InFiles, pipe: int, number: int) -> NoReturn:
    """Change and resolve until killed, and tell of each change that is done."""
    chance, step = random.Random(number), 0
    while True:
        step += 1
        name, why = chance.choice(NAMES), f"{number}:{step}"
        begun = time.perf_counter()
        try:
            what = chance.choices(("add", "move", "resolve"), (1, 1, 2))[0]
            ground.resolve(name) if what == "resolve" else getattr(ground, what)(name, why)
            said = what
        except (UnknownNameError, KeyError):  # nobody has set that alias yet
            said = "resolve"
        except Exception as error:  # noqa: BLE001 - a state that cannot be read
            said = f"failed {type(error).__name__}"
        line = f"{said} {why} {time.perf_counter() - begun:.6f}\n"
        os.write(pipe, line.encode())  # at once, or not at all


def measure(ground: InSqlite | InFiles) -> dict[str, float]:
    """Let the processes at a ground, kill them one after the other, and look what is left."""
    read, write = os.pipe()
    os.set_blocking(read, False)
    numbers, children, kills, heard = iter(range(10**6)), [], 0, b""
    chance, end = random.Random(0), time.monotonic() + SECONDS
    while time.monotonic() < end:
        while len(children) < PROCESSES:
            number = next(numbers)
            child = os.fork()
            if child == 0:
                work(ground, write, number)
            children.append(child)
        time.sleep(chance.uniform(0.0, 0.2))
        heard += drained(read)
        kill(children.pop(chance.randrange(PROCESSES)))
        kills += 1
    for child in children:
        kill(child)
    said = [line.split(" ") for line in (heard + drained(read)).decode().splitlines()]
    there = ground.whys()
    times = sorted(float(one[-1]) for one in said if one[0] == "resolve")
    return {
        "kills": kills,
        "changes per second": round(sum(one[0] in ("add", "move") for one in said) / SECONDS),
        # a move to where the alias points already leaves no row
        "lost": sum(one[0] == "add" and one[1] not in there for one in said),
        "unreadable": sum(one[0] == "failed" for one in said),
        "resolve, median ms": round(times[len(times) // 2] * 1000, 2),
        "resolve, p99 ms": round(times[len(times) * 99 // 100] * 1000, 2),
    }


def kill(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def drained(pipe: int) -> bytes:
    parts = []
    while True:
        try:
            parts.append(os.read(pipe, 1 << 16))
        except BlockingIOError:
            return b"".join(parts)


def main() -> None:
    for kind in (InSqlite, InFiles):
        with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as folder:
            ground = kind(Path(folder))
            ground.fill()
            print(json.dumps({"ground": kind.__name__, **measure(ground)}), flush=True)


if __name__ == "__main__":
    main()
