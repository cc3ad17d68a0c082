"""The forms of OpenAI's answers: whole ones, chunks of streams, log-probabilities, usage."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adapterkit.serving.answering import Answer, Token

__all__ = ["ChatShape", "CompletionShape", "Shape", "usage_of"]

LEAST_LOGPROB = -9999.0
"""What stands for minus infinity, which JSON does not know; OpenAI's API has the same."""


class Shape(Protocol):
    """How one of the two routes writes answers. It sees the pieces of each answer in order."""

    whole: str
    chunk: str
    prefix: str
    logprobs: bool

    def opening(self, index: int) -> dict[str, Any] | None:
        """The choice that a stream begins an answer with, if any."""

    def part(self, index: int, text: str, tokens: Sequence[Token]) -> dict[str, Any]:
        """The choice of a chunk; without ``finish_reason``."""

    def all(self, index: int, text: str, tokens: Sequence[Token]) -> dict[str, Any]:
        """The choice of a whole answer; without ``finish_reason``."""

    def closing(self, index: int) -> dict[str, Any]:
        """The choice that a stream ends an answer with; without ``finish_reason``."""


class ChatShape:
    """Answers of ``/v1/chat/completions``."""

    whole, chunk, prefix = "chat.completion", "chat.completion.chunk", "chatcmpl-"

    def __init__(self, *, logprobs: bool) -> None:
        self.logprobs = logprobs

    def opening(self, index: int) -> dict[str, Any] | None:
        """The role."""
        return {"index": index, "delta": {"role": "assistant", "content": ""}, "logprobs": None}

    def part(self, index: int, text: str, tokens: Sequence[Token]) -> dict[str, Any]:
        """A piece of the content."""
        return {"index": index, "delta": {"content": text}, "logprobs": self._said(tokens)}

    def all(self, index: int, text: str, tokens: Sequence[Token]) -> dict[str, Any]:
        """The message."""
        message = {"role": "assistant", "content": text, "refusal": None}
        return {"index": index, "message": message, "logprobs": self._said(tokens)}

    def closing(self, index: int) -> dict[str, Any]:
        """Nothing more."""
        return {"index": index, "delta": {}, "logprobs": None}

    def _said(self, tokens: Sequence[Token]) -> dict[str, Any] | None:
        if not self.logprobs:
            return None
        content = [
            {**_entry(token.text, token.logprob), "top_logprobs": [_entry(text, value) for _, text, value in token.top]}
            for token in tokens
        ]
        return {"content": content, "refusal": None}


class CompletionShape:
    """Answers of ``/v1/completions``."""

    whole, chunk, prefix = "text_completion", "text_completion", "cmpl-"

    def __init__(self, *, logprobs: bool) -> None:
        self.logprobs = logprobs
        self._offsets: dict[int, int] = {}

    def opening(self, index: int) -> dict[str, Any] | None:  # noqa: ARG002 - the protocol's
        """Nothing."""
        return None

    def part(self, index: int, text: str, tokens: Sequence[Token]) -> dict[str, Any]:
        """A piece of the text."""
        return {"index": index, "text": text, "logprobs": self._said(index, tokens)}

    all = part

    def closing(self, index: int) -> dict[str, Any]:
        """Nothing more."""
        return {"index": index, "text": "", "logprobs": None}

    def _said(self, index: int, tokens: Sequence[Token]) -> dict[str, Any] | None:
        if not self.logprobs:
            return None
        offsets = []
        for token in tokens:
            offsets.append(self._offsets.get(index, 0))
            self._offsets[index] = offsets[-1] + len(token.text)
        return {
            "tokens": [token.text for token in tokens],
            "token_logprobs": [_number(token.logprob) for token in tokens],
            "top_logprobs": [_likely(token) for token in tokens] if any(token.top for token in tokens) else None,
            "text_offset": offsets,
        }


def usage_of(answers: Sequence[Answer], each: int) -> dict[str, Any]:
    """What answers took together; a prompt that has ``each`` answers is counted once, as OpenAI's API does."""
    used = [answer.usage for answer in answers if answer.usage is not None]
    prompt = sum(answer.prompt_tokens for answer in answers[::each])
    made = sum(usage.completion_tokens for usage in used)
    cached = sum(answer.usage.cached_tokens for answer in answers[::each] if answer.usage is not None)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": made,
        "total_tokens": prompt + made,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def _entry(text: str, logprob: float | None) -> dict[str, Any]:
    # the bytes of a token that is part of a character are not known from its text
    return {"token": text, "logprob": _number(logprob), "bytes": None if "\ufffd" in text else list(text.encode())}


def _likely(token: Token) -> dict[str, float]:
    """The likeliest tokens, and the one that was taken, as OpenAI's API has it."""
    return {text: _number(value) for _, text, value in token.top} | {token.text: _number(token.logprob)}


def _number(logprob: float | None) -> float:
    return LEAST_LOGPROB if logprob is None or not math.isfinite(logprob) else max(logprob, LEAST_LOGPROB)
