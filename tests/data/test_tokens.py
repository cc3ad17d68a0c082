"""From trained characters to trained tokens: each guard, with what gets past it when it is gone."""

import pytest
from tokenizers import pre_tokenizers

from adapterkit import Conversation, DataError, Message, Text
from adapterkit.data import tokens
from adapterkit.data.rendering import Renderer
from adapterkit.data.spans import Rendered
from tests.sample_tokenizers import CHATML, MISTRAL, SlowTokenizer, example_tokenizer, sentencepiece_like, turns


@pytest.mark.parametrize(
    ("offsets", "span", "expected"),
    [
        ([(0, 2), (2, 4), (4, 6)], (2, 4), (1, 2)),
        ([(0, 2), (3, 4), (4, 6)], (2, 4), (1, 2)),  # the tokenizer leaves spaces out of its offsets
        ([(0, 2), (2, 3), (2, 3), (3, 5)], (0, 3), (0, 3)),  # one character in two tokens
        ([(0, 4), (4, 6)], (3, 6), None),  # begins within the first token
        ([(0, 2), (4, 6)], (3, 6), None),  # begins within the spaces of a token
        ([(0, 2), (2, 5), (5, 6)], (2, 4), None),  # ends within a token
        ([(0, 2)], (0, 3), None),  # ends behind the last token
    ],
)
def test_a_range_of_characters_is_a_range_of_whole_tokens_or_none(offsets, span, expected):
    ranges = tokens._ranges(offsets, [span])
    assert ranges == (None if expected is None else (expected,))


@pytest.mark.parametrize(("scheme", "works"), [("first", True), ("always", False)])
def test_parts_are_tokenized_apart_only_when_they_are_the_same_text_together(scheme, works):
    tokenizer = sentencepiece_like()
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    (result,) = tokens.tokenize_all(tokenizer, [Rendered("the card", ((5, 8),), prompt=5)])
    assert isinstance(result, tokens.Tokens if works else DataError)
    if works:
        ((first, last),) = result.trained
        assert tokenizer.decode(result.ids[first:last]) == "ard"


class PairsTokenizer(SlowTokenizer):
    """One token for two characters, so that most prompts end within one."""

    def _tokenize(self, text):
        return [text[at : at + 2] for at in range(0, len(text), 2)]

    def _convert_token_to_id(self, token):
        return sum(map(ord, token)) % 0x2000


@pytest.mark.parametrize(("question", "works"), [("abc", True), ("ab", False)])
def test_without_offsets_a_prompt_must_be_a_beginning_of_the_tokens(question, works):
    renderer = Renderer(PairsTokenizer(chat_template=MISTRAL.replace("{{ bos_token }}", "")), 64)
    (one,) = renderer.encode_all([turns(question, "d")])
    assert isinstance(one, DataError) != works


def test_an_answer_that_ends_in_a_character_of_several_tokens_is_trained_whole():
    template = "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] }}{% endfor %}"
    tokenizer = example_tokenizer(template + "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
    example = Renderer(tokenizer, 64).encode(turns("a", "\u65e5", "b", "c"))
    trained = [label for label in example.labels if label != -100]
    assert tokenizer.decode(trained) == "\u65e5c<|endoftext|>"


def test_a_header_is_never_taken_for_the_end_of_a_turn():
    closed = "{{ '<|im_end|>\n' if loop.last or messages[loop.index]['role'] == 'user' or m['role'] == 'user' }}"
    template = CHATML.replace(
        "' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}", "' + m['role'] + '\n' + m['content'] }}" + closed
    )
    renderer = Renderer(example_tokenizer(template), 64)
    assert renderer.encode(turns("a", "b", "c", "d")).trained == 4
    first = Message("assistant", "b", train=True)
    with pytest.raises(DataError, match="cannot tell"):
        renderer.encode(Conversation((Message("user", "a"), first, Message("assistant", "c", train=True))))


def test_a_beginning_of_text_that_stands_there_already_is_not_doubled():
    tokenizer = sentencepiece_like()
    ids = Renderer(tokenizer, 64).encode(Text("<s>the card")).input_ids
    assert ids.count(tokenizer.bos_token_id) == 1


def test_a_template_without_a_beginning_of_text_gets_none():
    tokenizer = sentencepiece_like(MISTRAL.replace("{{ bos_token }}", ""))
    renderer = Renderer(tokenizer, 64)
    assert tokenizer.bos_token_id not in renderer.encode(turns("the card", "new")).input_ids
    assert tokenizer.bos_token_id not in renderer.prompt("the card")
