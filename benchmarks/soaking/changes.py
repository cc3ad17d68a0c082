"""What changes while others ask: aliases, adapters, pins; and what is sent that must change nothing."""

from __future__ import annotations

import asyncio
import itertools
import random
import shutil
import time
from typing import TYPE_CHECKING, Any

import httpx

from .spoiling import NAMES, SPOILERS
from .traffic import name_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from pathlib import Path

    from .library import Library
    from .results import Results
    from .server import Disk
    from .truth import Truth

__all__ = ["ALIASED", "CHURNED", "LATE", "Changes"]

ALIASED = tuple(f"release-{number}" for number in range(5))
"""Names with three versions each, and an alias that moves between them."""
CHURNED = tuple(f"guest-{number}" for number in range(10))
"""Names that are added, replaced and removed."""
LATE = "late"
"""A name that is added while the disk is full, and by nobody else."""

NO_ANSWER = 599
"""Stands for the status of an answer that did not come."""


class Changes:
    """What an administrator does, each kind in a task of its own.

    Args:
        http: A client with the administrator's key.
        uploads: The folder from which the server may add adapters.
        versions: The numbers of each aliased name's versions, the first first.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        library: Library,
        uploads: Path,
        truth: Truth,
        results: Results,
        versions: dict[str, list[int]],
    ) -> None:
        self._http, self._library, self._uploads = http, library, uploads
        self._truth, self._results, self._versions = truth, results, versions
        self._fresh = itertools.count(10_000)
        self._is_full = False

    async def _send(self, kind: str, method: str, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
        try:
            response = await self._http.request(method, path, json=body)
        except httpx.TransportError as error:
            response = httpx.Response(NO_ANSWER, json={"error": {"code": None, "message": repr(error)}})
        self._results.changes[f"{kind}: {response.status_code}"] += 1
        return response

    def _check(self, response: httpx.Response, what: str) -> bool:
        """Whether it was done; a full disk is the only thing that it may fail of."""
        if response.status_code == 200:
            return True
        code = response.json()["error"]["code"]
        if not (self._is_full and (response.status_code, code) == (503, "store_unavailable")):
            self._results.surprise(f"{what}: {response.status_code} {response.text[:400]}")
        return False

    async def _change(self, name: str, number: int | None, what: str, send: Awaitable[httpx.Response]) -> bool:
        """Change what a name means, and keep account of it."""
        change = self._truth.begin(name, number)
        if self._check(await send, what):
            self._truth.agreed(change)
            return True
        self._truth.refused(name, change)
        return False

    # -- tasks

    async def aliases(self, stop: asyncio.Event) -> None:
        """Move aliases, and roll them back."""
        chance = random.Random("aliases")
        before: dict[str, int] = {}
        while not stop.is_set():
            name = chance.choice(ALIASED)
            alias, path = f"{name}@production", f"/v1/adapters/{name}/aliases/production"
            now = self._truth.now(alias)
            if name in before and chance.random() < 0.4:
                sent = self._send("alias rolled back", "POST", f"{path}/rollback", {"why": "soak"})
                if await self._change(alias, before.pop(name), f"roll back {alias}", sent):
                    continue
            else:
                number = chance.choice(self._versions[name])
                body = {"version": self._versions[name].index(number) + 1}
                done = await self._change(alias, number, f"move {alias}", self._send("alias moved", "POST", path, body))
                if done and now is not None and number != now:
                    before[name] = now
            await asyncio.sleep(0.2)

    async def guests(self, stop: asyncio.Event) -> None:
        """Add, replace and remove adapters, by both APIs."""
        chance = random.Random("guests")
        while not stop.is_set():
            name = chance.choice(CHURNED)
            now = self._truth.now(name)
            if now is not None and chance.random() < 0.5:
                await self._change(name, None, f"remove {name}", self._removal(name, is_vllms=chance.random() < 0.5))
            else:
                await self._add(name, is_vllms=chance.random() < 0.5)
            await asyncio.sleep(0.5)

    async def pins(self, stop: asyncio.Event) -> None:
        """Pin adapters and let them go."""
        chance = random.Random("pins")
        while not stop.is_set():
            path = f"/v1/adapters/{name_of(chance.randrange(40))}"
            response = await self._send("pinned", "POST", f"{path}/pin")
            if response.status_code not in (200, 400):  # 400: no room would be left for the others
                self._results.surprise(f"pin {path}: {response.status_code} {response.text[:400]}")
            await asyncio.sleep(1)
            self._check(await self._send("unpinned", "POST", f"{path}/unpin"), f"unpin {path}")

    async def hostile(self, stop: asyncio.Event) -> None:
        """Send what must be refused, and see that nothing came of it."""
        spoiled, names = itertools.cycle(SPOILERS), itertools.cycle(NAMES)
        while not stop.is_set():
            spoil = next(spoiled)
            folder = await asyncio.to_thread(self._spoiled, spoil)
            body = {"name": "spoiled", "source": str(folder)}
            await self._is_refused(f"corrupt upload, {spoil.__name__}", body)
            shutil.rmtree(folder, ignore_errors=True)
            await self._is_refused("hostile name", {"name": next(names), "source": "/x"})
            await asyncio.sleep(0.5)

    async def full_disk(self, disk: Disk, seconds: float) -> None:
        """Have no room on the disk for so long: what is served is served, what needs room is refused, nothing is lost."""
        self._is_full = True
        await asyncio.to_thread(disk.fill)
        until, refused = time.monotonic() + seconds, 0
        try:
            while time.monotonic() < until:
                refused += not await self._add(LATE, is_vllms=False)
                await asyncio.sleep(0.5)
        finally:
            disk.free()
        await asyncio.sleep(1)
        self._is_full = False
        if not refused:
            self._results.surprise("the disk was full, and adapters could be added")
        if not await self._add(LATE, is_vllms=False):
            self._results.surprise("the disk has room again, and adapters cannot be added")

    # -- their parts

    async def _add(self, name: str, *, is_vllms: bool) -> bool:
        number = next(self._fresh)
        folder = await asyncio.to_thread(self._saved, number)
        kind = "replaced" if self._truth.now(name) is not None else "added"
        if is_vllms:
            body = {"lora_name": name, "lora_path": str(folder), "load_inplace": True}
            sent = self._send(kind, "POST", "/v1/load_lora_adapter", body)
        else:
            sent = self._send(kind, "POST", "/v1/adapters", {"name": name, "source": str(folder), "replace": True})
        try:
            return await self._change(name, number, f"add {name}", sent)
        finally:
            shutil.rmtree(folder)

    def _removal(self, name: str, *, is_vllms: bool) -> Coroutine[Any, Any, httpx.Response]:
        if is_vllms:
            return self._send("removed", "POST", "/v1/unload_lora_adapter", {"lora_name": name})
        return self._send("removed", "DELETE", f"/v1/adapters/{name}")

    def _saved(self, number: int) -> Path:
        self._library.digest(((number, 1.0),))
        return self._library.save(number, self._uploads / f"upload-{number}")

    def _spoiled(self, spoil: Callable[[Path], None]) -> Path:
        folder = self._library.save(next(self._fresh) // 8 * 8, self._uploads / f"spoiled-{spoil.__name__}")
        spoil(folder)
        return folder

    async def _is_refused(self, kind: str, body: dict[str, Any]) -> None:
        response = await self._send(kind, "POST", "/v1/adapters", body)
        full = self._is_full and response.status_code == 503
        if not (400 <= response.status_code < 500 or full):
            self._results.surprise(f"{kind}: {response.status_code} {response.text[:400]}")
        if (await self._http.get("/v1/models/spoiled")).status_code != 404:
            self._results.surprise(f"{kind}: the name is served")
