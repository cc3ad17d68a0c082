"""Answers: each is what its prompt and its adapter give alone, whatever else is in the batch."""

import pytest
import torch
from transformers import AutoTokenizer, MambaConfig, MambaForCausalLM

from adapterkit import Base, ConfigError, DataError, Message, SelectionError, Text
from adapterkit.testing import tiny_llama
from tests.support import EXAMPLE_BASE, make_adapter

PROMPTS = [
    "How do I locate my card?",
    "Hi",
    "I still have not received my new card, I ordered over a week ago. What can I do about it now?",
    "My payment was declined",
    "hello there, general",
]


@pytest.fixture(scope="module")
def base():
    return Base(EXAMPLE_BASE)


@pytest.fixture(scope="module")
def adapters(base):
    return [make_adapter(base, seed=seed, rank=rank, scale=0.05) for seed, rank in ((1, 4), (2, 7))]


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(EXAMPLE_BASE)


def tiny(tokenizer):
    return Base(tiny_llama(vocab_size=8192, max_position_embeddings=128), tokenizer=tokenizer)


def test_a_mixed_batch_gives_each_prompt_its_solo_answer(base, adapters):
    chosen = [adapters[0], None, adapters[1], adapters[0], None]
    mixed = base.generate(PROMPTS, adapter=chosen, max_new_tokens=12)
    solo = [base.generate(p, adapter=a, max_new_tokens=12) for p, a in zip(PROMPTS, chosen, strict=True)]
    assert mixed == solo
    assert mixed != base.generate(PROMPTS, max_new_tokens=12), "the adapters change nothing: the test is blind"


def test_greedy_answers_are_those_of_a_plain_loop_without_padding_or_cache(base, adapters):
    chosen = [adapters[0], None, adapters[1]]
    answers = base.generate(PROMPTS[:3], adapter=chosen, max_new_tokens=6)
    for prompt, adapter, answer in zip(PROMPTS[:3], chosen, answers, strict=True):
        turns = [{"role": "user", "content": prompt}]
        text = base.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        ids = base.tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
        start = ids.shape[1]
        for _ in range(6):
            ids = torch.cat([ids, base.logits(ids, adapter=adapter)[:, -1:].argmax(-1)], dim=1)
        new = ids[0, start:].tolist()
        end = base.tokenizer.convert_tokens_to_ids("<|im_end|>")
        new = new[: new.index(end)] if end in new else new
        assert answer == base.tokenizer.decode(new, skip_special_tokens=True).strip()


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_neither_batch_size_nor_order_matters(base, adapters, batch_size):
    chosen = [adapters[0], None, adapters[1], adapters[0], None]
    want = base.generate(PROMPTS, adapter=chosen, max_new_tokens=8)
    assert base.generate(PROMPTS, adapter=chosen, max_new_tokens=8, batch_size=batch_size) == want
    turned = base.generate(PROMPTS[::-1], adapter=chosen[::-1], max_new_tokens=8, batch_size=batch_size)
    assert turned[::-1] == want


def test_what_goes_in_is_what_comes_out(base):
    one = base.generate(PROMPTS[0], max_new_tokens=4)
    assert isinstance(one, str)
    assert base.generate([PROMPTS[0]], max_new_tokens=4) == [one]
    assert base.generate((PROMPTS[0],), max_new_tokens=4) == [one]
    assert base.generate([], max_new_tokens=4) == []
    assert base.generate([[{"role": "user", "content": PROMPTS[0]}]], max_new_tokens=4) == [one]
    assert base.generate([[Message("user", PROMPTS[0])]], max_new_tokens=4) == [one]


def test_a_text_is_gone_on_from_without_a_template(base):
    text = "One day, a little girl named Lily"
    (answer,) = base.generate([Text(text)], max_new_tokens=5)
    ids = base.tokenizer(text, return_tensors="pt").input_ids
    start = ids.shape[1]
    for _ in range(5):
        ids = torch.cat([ids, base.logits(ids)[:, -1:].argmax(-1)], dim=1)
    assert answer == base.tokenizer.decode(ids[0, start:], skip_special_tokens=True).strip()
    assert [answer] != base.generate([text], max_new_tokens=5), "the template changes nothing: the test is blind"


def test_the_adapter_in_use_answers_unless_another_is_asked_for(base, adapters):
    first, second = adapters
    bare, one, two = (base.generate(PROMPTS[:2], adapter=a, max_new_tokens=6) for a in (None, first, second))
    base.use(first)
    try:
        assert base.generate(PROMPTS[:2], max_new_tokens=6) == one
        assert base.generate(PROMPTS[:2], adapter=None, max_new_tokens=6) == bare
        with base.using(second):
            assert base.generate(PROMPTS[:2], max_new_tokens=6) == two
        with base.using([None, second]):
            assert base.generate(PROMPTS[:2], max_new_tokens=6) == [bare[0], two[1]]
            with pytest.raises(SelectionError, match="2 adapters for 3 prompts"):
                base.generate(PROMPTS[:3], max_new_tokens=6)
        with base.using(None):
            assert base.generate(PROMPTS[:2], max_new_tokens=6) == bare
    finally:
        base.use(None)
    assert base.generate(PROMPTS[:2], max_new_tokens=6) == bare


# -- sampling ---------------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_sample_and_another_one_another(base):
    options = {"max_new_tokens": 12, "temperature": 1.0}
    first = base.generate(PROMPTS, seed=1, **options)
    torch.rand(3)
    state = torch.get_rng_state()
    assert base.generate(PROMPTS, seed=1, **options) == first
    assert torch.equal(torch.get_rng_state(), state), "the user's own random numbers were drawn from"
    assert base.generate(PROMPTS, seed=100, **options) != first


def test_a_rows_sample_depends_on_neither_neighbours_nor_batches(base, adapters):
    options = {"max_new_tokens": 8, "temperature": 1.0, "seed": 5}
    chosen = [adapters[0], None, adapters[1], None, adapters[0]]
    whole = base.generate(PROMPTS, adapter=chosen, **options)
    assert base.generate(PROMPTS, adapter=chosen, batch_size=2, **options) == whole
    others = [PROMPTS[0], *reversed(PROMPTS[1:])]
    assert base.generate(others, adapter=[chosen[0], None, None, None, None], **options)[0] == whole[0]
    assert base.generate(PROMPTS[3], adapter=None, **{**options, "seed": 5 + 3}) == whole[3], (
        "row 3 draws from seed + 3"
    )


def test_one_candidate_is_the_greedy_answer(base):
    greedy = base.generate(PROMPTS, max_new_tokens=8)
    assert base.generate(PROMPTS, max_new_tokens=8, temperature=1.0, top_k=1, seed=3) == greedy
    assert base.generate(PROMPTS, max_new_tokens=8, temperature=1.0, top_p=1e-6, seed=3) == greedy
    assert base.generate(PROMPTS, max_new_tokens=8, temperature=1e-40, seed=3) == greedy


@pytest.mark.parametrize(
    ("options", "kept"),
    [({"temperature": 1.0}, 97), ({"temperature": 0.5}, 97), ({"temperature": 1.0, "top_k": 5}, 5)],
    ids=["plain", "sharper", "five"],
)
def test_samples_are_distributed_as_the_model_says(options, kept):
    from adapterkit.generation import GenerateOptions, processors

    logits = torch.randn(97, generator=torch.Generator().manual_seed(0)) * 2
    want = torch.softmax(
        (logits / options["temperature"]).masked_fill(logits < logits.topk(kept).values[-1], -torch.inf), -1
    )
    draws = 20_000
    chosen = processors(GenerateOptions(**options), seed=11, rows=range(draws), device=torch.device("cpu"))
    counts = torch.zeros(97)
    scores = chosen(torch.zeros(draws, 1, dtype=torch.long), logits.expand(draws, -1))
    counts += torch.bincount(scores.argmax(-1), minlength=97)
    assert counts[want == 0].sum() == 0
    likely = want * draws >= 5  # chi-square is no good for rarer ones: they are one class together
    observed = torch.cat([counts[likely], counts[~likely].sum()[None]])
    expected = torch.cat([want[likely], want[~likely].sum()[None]]) * draws
    observed, expected = observed[expected > 0], expected[expected > 0]
    square = float(((observed - expected) ** 2 / expected).sum())
    freedom = len(expected) - 1
    assert square < freedom + 4 * (2 * freedom) ** 0.5, f"chi-square {square:.0f} of {freedom} degrees of freedom"


# -- what the base's own generation settings must not do --------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"num_beams": 3},
        {"num_beams": 2, "num_return_sequences": 2},
        {"do_sample": True, "temperature": 5.0, "top_k": 3, "top_p": 0.1},
        {"repetition_penalty": 50.0},
        {"no_repeat_ngram_size": 1},
        {"suppress_tokens": list(range(4000))},
        {"bad_words_ids": [[n] for n in range(4000)]},
        {"min_new_tokens": 5},
        {"forced_eos_token_id": 7},
        {"max_time": 0.0},
        {"max_length": 3},
        {"stop_strings": ["a", "e", "i"]},
        {"return_dict_in_generate": True, "output_scores": True},
        {"prompt_lookup_num_tokens": 2},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_a_base_with_generation_settings_of_its_own_answers_as_asked(tokenizer, settings):
    want = tiny(tokenizer).generate(PROMPTS[:3], max_new_tokens=5)
    base = tiny(tokenizer)
    for name, value in settings.items():
        setattr(base.model.generation_config, name, value)
    before = base.model.generation_config.to_dict()
    assert base.generate(PROMPTS[:3], max_new_tokens=5) == want
    assert base.model.generation_config.to_dict() == before


# -- misuse -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        (None, "prompts are a text or a list of prompts, not NoneType"),
        (7, "not int"),
        (Text("alone"), "not Text"),
        ({"role": "user", "content": "hi"}, "not dict"),
        ((p for p in PROMPTS), "not generator"),
        ([{"role": "user", "content": "hi"}], r"prompts\[0\] is one turn; a prompt of turns is a list"),
        (["fine", ""], r"prompts\[1\] is empty"),
        ([Text("")], r"prompts\[0\] is empty"),
        ([[]], r"prompts\[0\] is no prompt"),
        ([None], r"prompts\[0\] is no prompt"),
        ([b"bytes"], r"prompts\[0\] is no prompt"),
        ([[{"role": "user"}]], r"prompts\[0\] is no prompt"),
        ([[{"role": "user", "content": None}]], r"prompts\[0\] is no prompt"),
        (["end it <|im_end|> here"], r"holds '<\|im_end\|>'"),
    ],
)
def test_what_is_no_prompt_is_refused_by_number(tokenizer, prompts, said):
    with pytest.raises(DataError, match=said):
        tiny(tokenizer).generate(prompts)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_new_token": 3}, "max_new_token: no such option; did you mean 'max_new_tokens'"),
        ({"max_new_tokens": 0, "top_p": 0.0, "temperature": -1.0}, "(?s)max_new_tokens.*temperature.*top_p"),
        ({"temperature": float("inf")}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": 1.0, "seed": 2**64}, "seed"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_options_that_do_not_fit_are_refused(tokenizer, options, said):
    with pytest.raises(ConfigError, match=said):
        tiny(tokenizer).generate("hello", **options)


def test_a_prompt_that_is_too_long_is_refused_and_not_cut(tokenizer):
    with pytest.raises(SelectionError, match=r"a prompt of \d+ tokens and 64 new ones do not fit into the base's 128"):
        tiny(tokenizer).generate(["short", "far too long " * 40])


@pytest.mark.parametrize("adapter", ["cards", ["cards"], [None, None], [[None]], []])
def test_adapters_that_do_not_fit_the_prompts_are_refused(tokenizer, adapter):
    with pytest.raises(SelectionError, match="adapter"):
        tiny(tokenizer).generate(["hello"], adapter=adapter)


def test_rows_of_a_base_that_keeps_a_state_are_never_padded(tokenizer, monkeypatch):
    """What was read into a state stays there: padding before a row would change its answer, and some models do not leave it out."""
    config = MambaConfig(vocab_size=8192, hidden_size=32, num_hidden_layers=2)
    base = Base(MambaForCausalLM(config).eval(), tokenizer=tokenizer)
    seen, real = [], base.model.generate

    def watched(ids, **options):
        seen.append(options["attention_mask"])
        return real(ids, **options)

    monkeypatch.setattr(base.model, "generate", watched)
    prompts = ["one", "one two three four five", "two", "six seven"]
    answers = base.generate(prompts, max_new_tokens=4)
    assert len(seen) > 1
    assert all(bool(mask.all()) for mask in seen)
    assert answers == [base.generate(one, max_new_tokens=4) for one in prompts]
    ids, mask = torch.ones(2, 4, dtype=torch.long), torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]])
    with pytest.raises(SelectionError, match="MambaForCausalLM keeps a state"):
        base.logits(ids, attention_mask=mask)
