"""From rendered text to tokens, and from trained characters to trained tokens."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import attrs

from adapterkit.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .spans import Rendered

__all__ = ["Tokens", "leading_tokens", "tokenize", "tokenize_all"]

_UNPROVEN = "the tokenizer joins the end of the prompt and the beginning of the completion: remove the whitespace there"


@attrs.frozen
class Tokens:
    """Token ids, and the ranges of those that are trained."""

    ids: list[int]
    trained: tuple[tuple[int, int], ...]


def tokenize(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """The ids of each text; special tokens are those that stand in it, and none are added."""
    if not texts:
        return []
    ids: list[list[int]] = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def leading_tokens(tokenizer: Any) -> list[int]:
    """What the tokenizer puts before a text of its own accord, such as a beginning-of-text token."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    starts = [start for start in range(len(full)) if full[start : start + len(bare)] == bare]
    return list(full[: starts[0]]) if starts else []


def tokenize_all(tokenizer: Any, rendered: Sequence[Rendered]) -> list[Tokens | DataError]:
    """The tokens of each text, or the reason why its trained tokens cannot be told.

    The prompt of the last trained turn is tokenized by itself too, and the whole must begin with exactly those tokens:
    they are what the model sees when it generates.
    """
    prompts = iter(tokenize(tokenizer, [one.text[: one.prompt] for one in rendered if one.prompt is not None]))
    expected = [next(prompts) if one.prompt is not None else None for one in rendered]
    if not tokenizer.is_fast:
        wholes = tokenize(tokenizer, [one.text for one in rendered])
        return [_by_prefixes(tokenizer, *row) for row in zip(rendered, wholes, strict=True)]
    encoded = tokenizer(
        [one.text for one in rendered], add_special_tokens=False, return_offsets_mapping=True, verbose=False
    )
    rows = zip(rendered, encoded["input_ids"], encoded["offset_mapping"], expected, strict=True)
    return [_by_offsets(tokenizer, *row) for row in rows]


def _by_offsets(
    tokenizer: Any, one: Rendered, ids: list[int], offsets: list[tuple[int, int]], prompt: list[int] | None
) -> Tokens | DataError:
    if one.pieces:
        return _by_pieces(tokenizer, one, ids)
    if one.raw:
        return Tokens(ids, ((0, len(ids)),))
    trained = _ranges(offsets, one.spans)
    if trained is None or (prompt is not None and ids[: trained[-1][0]] != prompt):
        return _apart(tokenizer, one, ids)
    return Tokens(ids, trained)


def _ranges(offsets: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...] | None:
    """The tokens of each character range; None when one begins or ends within a token."""
    ends = list(accumulate((end for _, end in offsets), max))
    ranges = []
    for start, end in spans:
        first, last = bisect_right(ends, start), bisect_left(ends, end)
        if last >= len(ends) or ends[last] != end or (first and ends[first - 1] != start) or offsets[first][0] < start:
            return None
        while last + 1 < len(offsets) and offsets[last + 1] == offsets[last]:
            last += 1  # one character in several tokens
        ranges.append((first, last + 1))
    return tuple(ranges)


def _apart(tokenizer: Any, one: Rendered, whole: list[int]) -> Tokens | DataError:
    """Prompt and completion tokenized apart, as at generation, when tokenizing the whole joins characters of both."""
    if one.prompt is None:
        return DataError(_UNPROVEN)
    # behind a special token, text is tokenized as in the middle of a text
    anchor = tokenizer.eos_token
    prompt = tokenizer(one.text[: one.prompt], add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    rest = tokenizer(
        anchor + one.text[one.prompt :], add_special_tokens=False, return_offsets_mapping=True, verbose=False
    )
    ids = prompt["input_ids"] + rest["input_ids"][1:]
    earlier = _ranges(prompt["offset_mapping"], one.spans[:-1])
    length = one.spans[-1][1] - one.prompt
    last = _ranges(rest["offset_mapping"], [(len(anchor), len(anchor) + length)])
    if earlier is None or last is None or last[0][0] != 1 or _text(tokenizer, ids) != _text(tokenizer, whole):
        return DataError(_UNPROVEN)
    begin = len(prompt["input_ids"])
    return Tokens(ids, (*earlier, (begin, begin + last[0][1] - 1)))


def _by_pieces(tokenizer: Any, one: Rendered, whole: list[int]) -> Tokens | DataError:
    """Parts tokenized apart and put together: they must be the same text as the whole."""
    edges = list(pairwise(one.pieces))
    parts = tokenize(tokenizer, [one.text[start:end] for start, end in edges])
    ids = [token for part in parts for token in part]
    if _text(tokenizer, ids) != _text(tokenizer, whole):
        return DataError("the tokenizer does not give the same text for its parts: put their borders elsewhere")
    begins = list(accumulate(map(len, parts), initial=0))
    place = {edge: begin for (edge, _), begin in zip(edges, begins, strict=False)} | {len(one.text): len(ids)}
    return Tokens(ids, tuple((place[start], place[end]) for start, end in one.spans))


def _by_prefixes(tokenizer: Any, one: Rendered, ids: list[int]) -> Tokens | DataError:
    """For tokenizers that cannot tell characters: every beginning of the text must be a beginning of its tokens."""
    if one.pieces:
        return _by_pieces(tokenizer, one, ids)
    if one.raw:
        return Tokens(ids, ((0, len(ids)),))
    edges = tokenize(tokenizer, [one.text[:edge] for span in one.spans for edge in span])
    if any(ids[: len(edge)] != edge for edge in edges):
        return DataError(_UNPROVEN)
    bounds = [len(edge) for edge in edges]
    return Tokens(ids, tuple(zip(bounds[::2], bounds[1::2], strict=True)))


def _text(tokenizer: Any, ids: list[int]) -> str:
    text: str = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text
