"""Answers that are JSON of a schema: which tokens may come next, as llguidance says."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import torch

from adapterkit.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

__all__ = ["Constraint", "Constraints"]

MOST_SCHEMA = 65_536
"""Characters of a schema; what it takes to follow one grows with it."""
MOST_MULTIPLE = 10_000
"""The product of all multipleOf: a state is kept for each remainder."""


class Constraints:
    """Makes constraints for one base.

    Args:
        tokenizer: Of transformers, a fast one.
        vocabulary: How many logits the base gives.
        stop_ids: Tokens that end an answer.
    """

    def __init__(self, tokenizer: Any, vocabulary: int, stop_ids: Sequence[int]) -> None:
        self._tokenizer, self._vocabulary, self._stop_ids = tokenizer, vocabulary, list(stop_ids)
        self._known: Any = None

    def make(self, schema: str) -> Constraint:
        """What holds one answer to a schema.

        Raises:
            ConfigError: It is no JSON schema, asks for what cannot be held to, or llguidance is not installed.
        """
        problem = _problem(schema)
        if problem:
            raise _unfit(problem)
        try:
            import llguidance
            import llguidance.hf
        except ImportError:
            raise _unfit("it needs llguidance: pip install 'adapterkit[serve]'") from None
        try:
            if self._known is None:
                self._known = llguidance.hf.from_tokenizer(
                    self._tokenizer, n_vocab=self._vocabulary, eos_token=self._stop_ids
                )
            # without spaces: a model that likes line breaks would write them without end
            asked = "{}" if schema.strip() == "true" else schema  # which is the same, and can be told so
            grammar = llguidance.LLMatcher.grammar_from_json_schema(asked, overrides={"whitespace_flexible": False})
            matcher = llguidance.LLMatcher(self._known, grammar)
        except ValueError as error:
            raise _unfit(str(error).splitlines()[0][:300]) from None
        if matcher.is_error():
            raise _unfit(matcher.get_error().splitlines()[0][:300])
        return Constraint(matcher, self._vocabulary)


class Constraint:
    """Holds one answer to what it may be."""

    def __init__(self, matcher: Any, vocabulary: int) -> None:
        self._matcher, self._vocabulary = matcher, vocabulary

    def __call__(self, logits: Tensor) -> Tensor:
        """The same with what may not come next at minus infinity."""
        bits = torch.frombuffer(bytearray(self._matcher.compute_bitmask()), dtype=torch.uint8)
        self._check()
        allowed = (bits[:, None] >> torch.arange(8, dtype=torch.uint8)) & 1
        mask = allowed.reshape(-1)[: self._vocabulary].bool().to(logits.device)
        return logits.masked_fill(~mask, float("-inf"))

    def took(self, token: int) -> None:
        """This token has come."""
        self._matcher.consume_token(token)
        self._check()

    def _check(self) -> None:
        """Refuse to go on where the matcher has given up, which then lets an answer end anywhere.

        Raises:
            ConfigError: The schema asks for more than can be followed.
        """
        if self._matcher.is_error():
            raise _unfit(f"no answer can be held to it: {self._matcher.get_error().splitlines()[0][:200]}")


def _problem(schema: str) -> str:
    """What is wrong with a schema at first sight; empty where nothing is."""
    if len(schema) > MOST_SCHEMA:
        return f"it has {len(schema)} characters, and {MOST_SCHEMA} are the most"
    try:
        value = json.loads(schema)
    except (ValueError, RecursionError):
        return "it is no JSON"
    if not isinstance(value, (dict, bool)):
        return "a schema is an object, or true"
    common = math.prod({_digits(one) for one in _multiples(value)})
    return "" if common <= MOST_MULTIPLE else f"what its multipleOf have in common is beyond {MOST_MULTIPLE:,}"


def _multiples(schema: Any) -> Iterator[Any]:
    """Each multipleOf in a schema, wherever it may be meant."""
    open_ = [schema]
    while open_:
        one = open_.pop()
        if isinstance(one, dict):
            yield from [value for key, value in one.items() if key == "multipleOf"]
            open_ += one.values()
        elif isinstance(one, list):
            open_ += one


def _digits(number: Any) -> int:
    """A number as an integer, without the point and the zeros at its end, or 1."""
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not math.isfinite(number):
        return 1
    digits = "".join(map(str, Decimal(str(number)).as_tuple().digits)).rstrip("0")
    return int(digits or 1)


def _unfit(problem: str) -> ConfigError:
    return ConfigError("options of the request do not fit", [f"json_schema: {problem}"])
