"""From what is asked to tokens."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from adapterkit.contracts import Conversation, Text
from adapterkit.data.padding import check_known
from adapterkit.data.rendering import Renderer
from adapterkit.errors import DataError, SelectionError
from adapterkit.generation import check_prompts

from .text import Typed

if TYPE_CHECKING:
    from adapterkit.base import Base

__all__ = ["Prompts"]


class Prompts:
    """Reads the prompts for a base; usable from any thread.

    Args:
        base: The base.
        longest: The most tokens of a prompt and its answer together.
    """

    def __init__(self, base: Base, longest: int) -> None:
        self._base, self._longest = base, longest
        self._renderer = Renderer(base.tokenizer, max_length=longest)
        self._alone = threading.Lock()
        """Tokenizers are not made for several threads at once."""
        self.stop_ids = self._renderer.stop_ids()
        self._widest = max(map(len, base.tokenizer.get_vocab()), default=1)
        """Characters of the longest token; a tokenizer writes none with fewer than it stands for."""

    def read(self, prompt: Any) -> list[int]:
        """A prompt's tokens.

        Raises:
            DataError: It cannot be used.
            SelectionError: It leaves no room for an answer.
        """
        if _is_ids(prompt):
            tokens = [one for one in prompt if type(one) is int and one >= 0]
            if len(tokens) < len(prompt):
                raise DataError("a prompt of token ids holds something else than numbers from 0 on")
        else:
            check_prompts([prompt])
            self._check_size(prompt)
            with self._alone:
                tokens = self._renderer.prompt(prompt)
        check_known(self._base.model, tokens)
        if len(tokens) >= self._longest:
            raise SelectionError(
                f"a prompt of {len(tokens)} tokens leaves no room for an answer: the engine keeps {self._longest}"
            )
        return tokens

    def _check_size(self, prompt: Any) -> None:
        """Refuse what is far too long before it is read, which takes seconds for megabytes."""
        characters = sum(map(len, _texts(prompt)))
        if characters > self._longest * self._widest:
            raise SelectionError(
                f"a prompt of {characters:,} characters leaves no room for an answer: the engine keeps {self._longest} tokens"
            )

    def typed(self, prompt: Any, stop: Sequence[str]) -> Typed:
        """What makes text of the tokens of its answer; what goes on from a text keeps its whitespace."""
        if isinstance(prompt, Text) or _is_ids(prompt):
            return Typed(self._base.tokenizer, stop, strip=False)
        with self._alone:
            return Typed(self._base.tokenizer, stop, lead=self._renderer.inserted)


def _texts(prompt: Any) -> Iterator[str]:
    """The texts in a prompt: itself, or what is said in its turns, and its tools."""
    if isinstance(prompt, (str, Text)):
        yield prompt if isinstance(prompt, str) else prompt.text
        return
    if isinstance(prompt, Conversation):
        yield prompt.tools
        prompt = prompt.messages
    for turn in prompt:
        said = turn if isinstance(turn, Mapping) else attrs.asdict(turn, recurse=False)
        yield from (value for value in said.values() if isinstance(value, str))


def _is_ids(prompt: Any) -> bool:
    """Whether a prompt is numbers of tokens; bytes are numbers too, and meant otherwise."""
    is_list = isinstance(prompt, Sequence) and not isinstance(prompt, (str, bytes, bytearray, memoryview))
    return is_list and bool(prompt) and isinstance(prompt[0], int)
