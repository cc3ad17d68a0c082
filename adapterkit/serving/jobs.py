"""A request as the engine sees it: what it has read, what it has answered, and what it holds meanwhile."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import attrs

from adapterkit.errors import SelectionError
from adapterkit.runtime.tokens import prefix_count, virtual_count
from adapterkit.sites import INPUT

from .answering import Answer, Piece, Token, Usage
from .stepping import Row
from .stepping.choosing import alternatives

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from adapterkit.runtime import Plan

    from .asking import AskOptions
    from .stepping import KVPool, Pages
    from .stepping.choosing import Chooser
    from .stepping.runner import Parts
    from .text import Typed

__all__ = ["Job"]

USUAL = 256
"""The tokens that an answer is thought to have where more are asked for: many ask for far more than they get."""


@attrs.define(eq=False)
class Job:
    """One request under way.

    Attributes:
        answer: What whoever asked has of it.
        options: How to answer.
        prompt: Its tokens.
        chooser: Takes a token from logits.
        typed: Makes text of tokens.
        stop_ids: Tokens that end the answer.
        most: How many tokens of it the engine keeps, at most.
        key: Who asks.
        until: When it is given up, by the monotonic clock.
        kept: Adapters that were given as values: alive as long as the request.
        tokens: All of its tokens: those of its adapters, which are negative, of the prompt and of the answer.
        cached: How many of them have their keys and values in the pages.
        found: How many tokens of the prompt another request had left there.
        generated: How many tokens of the answer there are.
        whole: What its adapters do together.
        plan: The same but for what they put before the prompt.
        parts: What each of them does, and its weight.
        alone: Whether it has to have steps of its own adapters only.
    """

    answer: Answer
    options: AskOptions
    prompt: Sequence[int]
    chooser: Chooser
    typed: Typed
    stop_ids: tuple[int, ...]
    most: int
    key: str = ""
    until: float | None = None
    kept: Any = None
    arrived: float = attrs.field(factory=time.monotonic)
    began: float = 0.0
    first: float = 0.0
    tokens: list[int] = attrs.field(factory=list)
    cached: int = 0
    found: int = 0
    generated: int = 0
    whole: Plan | None = None
    plan: Plan | None = None
    parts: Parts = ()
    alone: bool = False
    table: Tensor | None = None
    pages: Pages | None = None
    _limit: int = 0
    _pending: list[Token] = attrs.field(factory=list)

    # -- waiting

    @property
    def name(self) -> str:
        """What its traffic is counted under."""
        return self.answer.choice.name

    @property
    def cost(self) -> int:
        """The tokens that it is thought to take; nothing more for one that was interrupted."""
        if self.tokens:
            return 0
        return self._thought()

    @property
    def owed(self) -> int:
        """The tokens that it has taken beyond what it was thought to; less than nothing where it took fewer."""
        return len(self.prompt) + self.generated - self._thought()

    def _thought(self) -> int:
        return min(self.most, len(self.prompt) + min(self.options.max_new_tokens or USUAL, USUAL))

    @property
    def digests(self) -> tuple[str, ...]:
        """The adapters that it needs."""
        return tuple(digest for digest, _ in self.answer.choice.parts)

    # -- in the batch

    def begin(self, pool: KVPool, whole: Plan | None, plan: Plan | None, parts: Parts = ()) -> bool:
        """Take a place in the batch; False, and nothing is changed, where there are no pages for what it has to read.

        Args:
            pool: Where its keys and values will be.
            whole: What all of its adapters do together.
            plan: The same but for what they put before the prompt.
            parts: What each of them does, and its weight.

        Raises:
            SelectionError: With what its adapters put before it, it is longer than the engine keeps.
        """
        prefix, virtual = prefix_count(whole), virtual_count(whole)
        before = [-1 - virtual - place for place in range(prefix)] + [-1 - number for number in range(virtual)]
        tokens = self.tokens or [*before, *self.prompt]
        if len(tokens) >= self.most:
            raise SelectionError(
                f"a prompt of {len(self.prompt)} tokens, behind {len(before)} of its adapters, leaves no room for an answer: the "
                f"engine keeps {self.most}"
            )
        pages, cached = pool.begin(self.answer.choice.digest, tokens)
        if not pool.extend(pages, len(tokens) + 1):
            pool.end(pages)
            return False
        if not self.tokens:
            self._limit = min(self.options.max_new_tokens or self.most, self.most - len(tokens))
            self.found = max(0, cached - len(before))
        self.tokens, self.pages, self.cached = tokens, pages, cached
        self.whole, self.plan, self.parts = whole, plan, parts
        try:
            self._put_before(pool, pages, prefix, virtual)
        except BaseException:  # a plugin's code, or the memory
            self.cached = 0
            self.leave(pool)
            raise
        return True

    def _put_before(self, pool: KVPool, pages: Pages, prefix: int, virtual: int) -> None:
        """What its adapters put before the prompt: a table of virtual tokens, and keys and values of a prefix."""
        put: Any = (self.whole or {}).get(INPUT)
        self.table = put.table() if virtual else None
        if self.cached < prefix:
            keys, values = put.prefix(1)
            for layer, (key, value) in enumerate(zip(keys, values, strict=True)):
                pool.write(layer, pages, self.cached, key[0, :, self.cached :], value[0, :, self.cached :])
            self.cached = prefix

    def row(self, most: int) -> Row:
        """Its next step, of at most so many tokens."""
        if self.pages is None:
            raise RuntimeError("a request without pages has no steps")
        tokens = self.tokens[self.cached : self.cached + most]
        return Row(self.plan, self.table, self.pages, self.cached, tokens, self.parts)

    @property
    def todo(self) -> int:
        """How many tokens the base has not read yet."""
        return len(self.tokens) - self.cached

    def leave(self, pool: KVPool) -> None:
        """Give its pages back."""
        if self.pages is not None:
            pool.keep(self.pages, self.tokens[: self.cached])
            pool.end(self.pages)
        self.pages, self.whole, self.plan, self.parts, self.table = None, None, None, (), None

    # -- its answer

    def take(self, token: int, logits: Tensor) -> bool:
        """Add a token to the answer; whether it is whole now."""
        self.generated += 1
        self.first = self.first or time.monotonic()
        if token in self.stop_ids:
            self._end("stop")
            return True
        self.tokens.append(token)
        self._pending.append(self._token(token, logits))
        self._put(self.typed.add(token))
        if self.typed.stopped:
            self._end("stop")
        elif self.generated >= self._limit:
            self._end("length")
        return self.answer.done

    def _token(self, token: int, logits: Tensor) -> Token:
        if self.options.logprobs is None:
            return Token(token)
        logprob, top = alternatives(logits, token, self.options.logprobs)
        one = self.typed.one
        return Token(token, one(token), logprob, tuple((other, one(other), value) for other, value in top))

    def _put(self, text: str, *, last: bool = False) -> None:
        if text or (last and self._pending):
            self.answer.put(Piece(text, tuple(self._pending)))
            self._pending = []

    def _end(self, reason: str) -> None:
        self._put(self.typed.end(), last=True)
        self.answer.finish(reason, self.usage())

    def cancel(self) -> None:
        """Nobody waits for it any more."""
        self.answer.finish("cancelled", self.usage())

    def usage(self) -> Usage:
        """What it has taken so far."""
        now = time.monotonic()
        return Usage(
            prompt_tokens=len(self.prompt),
            completion_tokens=self.generated,
            cached_tokens=self.found,
            queued=(self.began or now) - self.arrived,
            first_token=(self.first or now) - self.arrived,
            seconds=now - self.arrived,
        )
