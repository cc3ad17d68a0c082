"""Text while it comes: together it is what all tokens read as at once, whatever stands at the seams."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from adapterkit import Base
from adapterkit.data.rendering import Renderer
from adapterkit.serving.prompts import Prompts
from adapterkit.serving.text import MOST_TOGETHER, UNFINISHED, Typed
from adapterkit.testing import tiny_llama
from tests.sample_tokenizers import QWEN3
from tests.support import EXAMPLE_BASE

STOPS = ("END", "\n\n", "e n", "ab", "abc")


@pytest.fixture(scope="module")
def bytes_tokenizer():
    """GPT-2's kind, whose tokens may be parts of characters."""
    return AutoTokenizer.from_pretrained(EXAMPLE_BASE)


@pytest.fixture(scope="module")
def pieces_tokenizer():
    """Llama 2's kind: pieces with a mark for the space before them, and a token for each byte."""
    words = ["<unk>", "<s>", "</s>", *(f"<0x{number:02X}>" for number in range(256))]
    words += ["▁", "▁the", "▁a", "the", "a", "b", "c", "ab", "\n", "▁END", "EN", "D", "é", "▁e", "n"]
    core = Tokenizer(models.BPE({word: number for number, word in enumerate(words)}, [], byte_fallback=True))
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def whole(tokenizer, ids):
    return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def typed(tokenizer, ids, stop=(), **how):
    """The pieces, as far as they are wanted."""
    one, pieces = Typed(tokenizer, stop, **how), []
    for token in ids:
        pieces.append(one.add(token))
        if one.stopped:
            break
    return [*pieces, one.end()], one.stopped


def cut(text, stop):
    ends = [place for place in (text.find(one) for one in stop) if place >= 0]
    return text[: min(ends)] if ends else text


@pytest.mark.parametrize("strip", [True, False])
@given(seed=st.integers(0, 2**32))
@settings(max_examples=80)
def test_pieces_are_the_whole_text_also_where_bytes_are_broken(bytes_tokenizer, strip, seed):
    luck = random.Random(seed)
    broken = [number for number in range(3, 260) if UNFINISHED in bytes_tokenizer.decode([number])]
    ids = [luck.choice(broken) if luck.random() < 0.5 else luck.randrange(8192) for _ in range(luck.randint(1, 30))]
    text = whole(bytes_tokenizer, ids)
    pieces, _ = typed(bytes_tokenizer, ids, strip=strip)
    assert "".join(pieces) == (text.strip() if strip else text)


@given(text=st.text(min_size=1, max_size=30), strip=st.booleans())
@settings(max_examples=80)
def test_no_character_comes_in_parts(bytes_tokenizer, text, strip):
    ids = bytes_tokenizer(text, add_special_tokens=False).input_ids
    expected = whole(bytes_tokenizer, ids)
    pieces, _ = typed(bytes_tokenizer, ids, strip=strip)
    assert "".join(pieces) == (expected.strip() if strip else expected)
    assert UNFINISHED in text or not any(UNFINISHED in piece for piece in pieces)


@given(data=st.data(), stop=st.lists(st.sampled_from(STOPS), unique=True), strip=st.booleans())
@settings(max_examples=120)
def test_nothing_of_a_stop_string_is_ever_shown(bytes_tokenizer, data, stop, strip):
    parts = data.draw(
        st.lists(st.sampled_from(["E", "N", "D", "END", " ", "\n", "a", "b", "c", "e n", "é", "x"]), max_size=20)
    )
    text = "".join(parts)
    ids = [token for one in parts for token in bytes_tokenizer(one, add_special_tokens=False).input_ids]
    if whole(bytes_tokenizer, ids) != text:
        return  # a space of the tokenizer's own
    pieces, stopped = typed(bytes_tokenizer, ids, stop, strip=strip)
    found = "".join(pieces)
    assert not any(one in found for one in stop)
    assert stopped == any(one in text for one in stop)
    # the first that is complete ends it, and of several at once the one that begins first
    assert (text.strip() if strip else text).startswith(found)
    ends = min((text.find(one) + len(one) for one in stop if one in text), default=None)
    if ends is None:
        assert found == (text.strip() if strip else text)
    elif not strip:
        assert found == cut(text[:ends], stop)


@given(ids=st.lists(st.integers(0, 273), min_size=1, max_size=20))
@settings(max_examples=80)
def test_pieces_with_marks_for_spaces(pieces_tokenizer, ids):
    text = whole(pieces_tokenizer, ids)
    if UNFINISHED in text:
        return  # such a tokenizer takes back what it had read of a run of bytes
    assert "".join(typed(pieces_tokenizer, ids, strip=False)[0]) == text


def test_a_stop_string_over_the_seam_of_two_tokens(bytes_tokenizer):
    ids = [
        token
        for part in ("one", " E", "N", "D two")
        for token in bytes_tokenizer(part, add_special_tokens=False).input_ids
    ]
    one = Typed(bytes_tokenizer, ("END",))
    shown = [one.add(token) for token in ids]
    assert "".join(shown) == "one"
    assert one.stopped
    assert one.end() == ""


def test_what_looked_like_a_stop_string_and_was_none_is_shown_after_all(bytes_tokenizer):
    ids = bytes_tokenizer("EN", add_special_tokens=False).input_ids
    pieces, stopped = typed(bytes_tokenizer, ids, ("END",))
    assert pieces[:-1] == [""] * len(ids)
    assert (pieces[-1], stopped) == ("EN", False)


def test_broken_bytes_without_end_are_not_read_again_without_end(bytes_tokenizer):
    counted, decode = [], bytes_tokenizer.decode

    class Counting:
        def decode(self, ids, **how):
            counted.append(len(ids))
            return decode(ids, **how)

    broken = next(number for number in range(3, 260) if decode([number]) == UNFINISHED)
    pieces, _ = typed(Counting(), [broken] * 500)
    assert "".join(pieces) == UNFINISHED * 500
    assert max(counted) <= 2 * MOST_TOGETHER + 2


@pytest.mark.parametrize(
    "text", ["yes", "<think>\n\n</think>\n\nyes", "<think>\n\n</think>", "<think>\nno", "<th", " <think> "]
)
def test_empty_thoughts_of_the_template_are_left_out_as_base_generate_does(bytes_tokenizer, text):
    tokenizer = AutoTokenizer.from_pretrained(EXAMPLE_BASE)
    tokenizer.chat_template = QWEN3
    base = Base(tiny_llama(vocab_size=8192, max_position_embeddings=256), tokenizer=tokenizer)
    one = Prompts(base, 256).typed("hi", ())
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert "".join(map(one.add, ids)) + one.end() == Renderer(tokenizer, max_length=256).decode(ids)
