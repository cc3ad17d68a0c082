"""Who asks: clients that each send one request after another, and some of which leave early."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from typing import TYPE_CHECKING, Any

import attrs
import httpx

from .library import KINDS, STACKABLE
from .results import Key

if TYPE_CHECKING:
    from .library import Library, Parts
    from .results import Results
    from .truth import Truth

__all__ = ["Names", "Traffic", "name_of"]

OPENINGS = (
    "The card",
    "My money",
    "Someone has taken",
    "Dear bank, last week I lost",
    "I should like to know why the payment",
)
ENDINGS = (
    "",
    " was",
    " and I cannot find it; please tell me what",
    " from the cash machine at the station on Friday evening, so",
)
LENGTHS = (1, 8, 16, 32)
LONG = 440
"""Tokens of an answer that is given up at the server's deadline, or takes others' pages."""


def name_of(number: int) -> str:
    """What an adapter that stays is called."""
    return f"adapter-{number:03}"


@attrs.define
class Names:
    """What may be asked for."""

    adapters: int
    moving: tuple[str, ...]
    weights: list[float] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.weights = list(itertools.accumulate(1 / rank for rank in range(1, self.adapters + 1)))

    def pick(self, chance: random.Random) -> int:
        """One adapter by Zipf's law of exponent 1: the first is asked for twice as often as the second."""
        return chance.choices(range(self.adapters), cum_weights=self.weights)[0]


class Traffic:
    """Requests by several clients, and what is found in the answers."""

    def __init__(self, http: httpx.AsyncClient, library: Library, names: Names, truth: Truth, results: Results) -> None:
        self._http, self._library, self._names, self._truth, self._results = http, library, names, truth, results

    async def client(self, number: int, stop: asyncio.Event) -> None:
        """Ask until it is told to stop."""
        chance = random.Random(number)
        while not stop.is_set():
            await self.one(chance)

    async def one(self, chance: random.Random) -> None:
        """One request of a kind that is drawn."""
        kind = chance.random()
        model, parts = self._model(chance)
        prompt = chance.choice(OPENINGS) + chance.choice(ENDINGS)
        body: dict[str, Any] = {"model": model, "temperature": 0, "max_tokens": chance.choice(LENGTHS)}
        if kind < 0.02:
            body["max_tokens"] = LONG
        elif kind < 0.1:
            body |= {"temperature": 0.8, "seed": chance.randrange(1000), "n": 2}
        is_chat = chance.random() < 0.5
        body |= {"messages": [{"role": "user", "content": prompt}]} if is_chat else {"prompt": prompt}
        path = "/v1/chat/completions" if is_chat else "/v1/completions"
        leaves = chance.random() * 0.5 if chance.random() < 0.08 else None
        if chance.random() < 0.5:
            await self._stream(path, body, parts, prompt, leaves)
        else:
            await self._whole(path, body, parts, prompt, leaves)

    def _model(self, chance: random.Random) -> tuple[str, Parts | None]:
        """What is asked for, and what that means; None where it may mean one thing or another."""
        kind = chance.random()
        if kind < 0.05:
            return "base", ()
        if kind < 0.15:
            return chance.choice(self._names.moving), None
        first = self._names.pick(chance)
        if kind < 0.85:
            return name_of(first), ((first, 1.0),)
        one, other = self._plain(first), self._plain(self._names.pick(chance))
        if one == other:
            other = 1 - min(one, 1)
        if kind < 0.93:
            return f"{name_of(one)}+{name_of(other)}", ((one, 1.0), (other, 1.0))
        return f"{name_of(one)}*0.7+{name_of(other)}*-0.3", ((one, 0.7), (other, -0.3))

    def _plain(self, number: int) -> int:
        """An adapter near this one that may act with others."""
        return number if number % len(KINDS) < STACKABLE else number - STACKABLE

    async def _whole(
        self, path: str, body: dict[str, Any], parts: Parts | None, prompt: str, leaves: float | None
    ) -> None:
        began = time.monotonic()
        try:
            async with asyncio.timeout(leaves):
                response = await self._http.post(path, json=body)
        except TimeoutError:
            self._results.outcomes["left"] += 1
            return
        except httpx.TransportError as error:
            self._results.surprise(f"{body['model']}: {error!r}")
            return
        if response.status_code != 200:
            self._refused(body, parts, response.status_code, response.text, began)
            return
        told = response.json()
        texts = [choice.get("text", choice.get("message", {}).get("content")) for choice in told["choices"]]
        self._results.tokens += told["usage"]["completion_tokens"]
        self._answered(body, parts, prompt, texts[0], response, began)

    async def _stream(
        self, path: str, body: dict[str, Any], parts: Parts | None, prompt: str, leaves: float | None
    ) -> None:
        began, first, texts = time.monotonic(), 0.0, {}
        body = {**body, "stream": True, "stream_options": {"include_usage": True}}
        try:
            async with asyncio.timeout(leaves), self._http.stream("POST", path, json=body) as response:
                if response.status_code != 200:
                    self._refused(body, parts, response.status_code, (await response.aread()).decode(), began)
                    return
                is_whole = False
                async for line in response.aiter_lines():
                    if not line:
                        continue
                    first = first or time.monotonic() - began
                    is_whole = line == "data: [DONE]"
                    if is_whole:
                        continue
                    event = json.loads(line.removeprefix("data: "))
                    if "error" in event:
                        self._refused(body, parts, 200, line, began)
                        return
                    for choice in event["choices"]:
                        said = choice["text"] if "text" in choice else choice["delta"].get("content") or ""
                        texts[choice["index"]] = texts.get(choice["index"], "") + said
                    self._results.tokens += (event["usage"] or {}).get("completion_tokens", 0)
        except TimeoutError:
            self._results.outcomes["left"] += 1
            return
        except httpx.TransportError as error:
            self._results.surprise(f"{body['model']}, streamed: {error!r}")
            return
        if not is_whole:
            self._results.surprise(f"{body['model']}: a stream ended without [DONE]")
            return
        self._results.firsts.append(first)
        self._answered(body, parts, prompt, texts.get(0, ""), response, began)

    def _refused(self, body: dict[str, Any], parts: Parts | None, status: int, text: str, began: float) -> None:
        """What may be refused, and with what."""
        code = json.loads(text.removeprefix("data: ")).get("error", {}).get("code")
        if code == "deadline_exceeded":
            self._results.outcomes["given up at the deadline"] += 1
        elif code == "rate_limit_exceeded":
            self._results.outcomes["refused, too many wait (429)"] += 1
        elif status == 404 and parts is None and None in self._truth.possible(body["model"], began, time.monotonic()):
            self._results.outcomes["refused, out of service (404)"] += 1
        else:
            self._results.surprise(f"{body['model']}: {status} {text[:400]}")

    def _answered(
        self, body: dict[str, Any], parts: Parts | None, prompt: str, text: str, response: httpx.Response, began: float
    ) -> None:
        """See that it was answered by what was asked for, and as before."""
        ended = time.monotonic()
        self._results.outcomes["answered"] += 1
        self._results.latencies.append(ended - began)
        digest = response.headers["x-adapterkit-digest"]
        if parts is None:
            numbers = self._truth.possible(body["model"], began, ended) - {None}
            found: list[Parts] = [((number, 1.0),) for number in numbers if number is not None]
        else:
            found = [parts]
        meant = [one for one in found if self._library.digest(one) == digest]
        if not meant:
            self._results.wrong.append(f"{body['model']} was answered by {digest}, and means one of {found}")
        elif body["temperature"] == 0:
            key = Key(meant[0], prompt, "messages" in body, body["max_tokens"])
            self._results.answered(key, text)
