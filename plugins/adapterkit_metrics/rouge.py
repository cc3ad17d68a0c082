"""ROUGE (Lin 2004): how many words, pairs of words, or words in order an answer shares with the expected text."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import regex

from .answers import pairs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["rouge_1", "rouge_2", "rouge_l"]

# On ASCII these are the tokens of Google's rouge-score without its stemmer, which knows no other letters at all. Han and kana
# are written without spaces: each sign is a word.
WORD = regex.compile(
    r"[\p{Han}\p{Hiragana}\p{Katakana}]|[[\p{L}\p{M}\p{N}]--[\p{Han}\p{Hiragana}\p{Katakana}]]+", regex.V1
)


def rouge_1(predictions: Sequence[str], references: Sequence[str]) -> list[float]:
    """F1 of the words that an answer shares with the expected text: each as often as both have it."""
    return _each(predictions, references, lambda got, want: _overlap(got, want, 1))


def rouge_2(predictions: Sequence[str], references: Sequence[str]) -> list[float]:
    """F1 of the pairs of neighbouring words that an answer shares with the expected text: each as often as both have it."""
    return _each(predictions, references, lambda got, want: _overlap(got, want, 2))


def rouge_l(predictions: Sequence[str], references: Sequence[str]) -> list[float]:
    """F1 of the longest common subsequence of an answer's words and the expected text's: the summary-free form."""
    return _each(predictions, references, lambda got, want: _f1(_common(got, want), len(got), len(want)))


def _each(
    predictions: Sequence[str], references: Sequence[str], score: Callable[[list[str], list[str]], float]
) -> list[float]:
    return [score(_words(got), _words(want)) for got, want in pairs(predictions, references)]


def _words(text: str) -> list[str]:
    words: list[str] = WORD.findall(text.lower())
    return words


def _overlap(got: list[str], want: list[str], n: int) -> float:
    given, expected = (Counter(zip(*(words[k:] for k in range(n)), strict=False)) for words in (got, want))
    return _f1((given & expected).total(), given.total(), expected.total())


def _common(got: list[str], want: list[str]) -> int:
    """The length of the longest common subsequence, with a bit for each word of ``got`` (Hyyrö 2004)."""
    places: dict[str, int] = {}
    for place, word in enumerate(got):
        places[word] = places.get(word, 0) | 1 << place
    every = (1 << len(got)) - 1
    row = every
    for word in want:
        both = row & places.get(word, 0)
        row = (row + both | row - both) & every
    return len(got) - row.bit_count()


def _f1(shared: int, given: int, expected: int) -> float:
    return 2 * shared / (given + expected) if shared else 0.0
