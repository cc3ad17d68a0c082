"""Prefix tuning: keys and values before the sequence, as PEFT has them, beside anything else in one batch."""

import pytest
import torch
from peft import PeftModel, PrefixTuningConfig, get_peft_model

from adapterkit import INPUT, ArtifactError, Base, ConfigError, Example, SelectionError
from adapterkit.testing import tiny_llama
from tests.sample_tokenizers import example_tokenizer
from tests.support import EXAMPLE_BASE, FAMILIES, losses_of, make_adapter, state_digest

CLOSE = {"atol": 1e-5, "rtol": 0}
ROWS = [{"prompt": f"say {n}", "completion": word} for n, word in enumerate(["one", "two", "three"] * 4)]


@pytest.fixture(params=FAMILIES)
def base(request):
    return Base(FAMILIES[request.param]())


@pytest.fixture
def ids():
    return torch.randint(1, 97, (4, 11), generator=torch.Generator().manual_seed(0))


def prefix(base, tokens=5, seed=0):
    return make_adapter(base, method="prefix_tuning", tokens=tokens, seed=seed, scale=0.5)


def test_a_prefix_is_what_the_cache_begins_with(ids):
    """The keys and values of real tokens, put before a sequence, are those tokens."""
    base = Base(tiny_llama())
    first = ids[:1, :4]
    with torch.no_grad():
        cache = base.model(first, use_cache=True).past_key_values
    both = torch.stack([torch.stack([one.keys[0], one.values[0]]) for one in cache.layers])  # layers, 2, heads, n, size
    table = both.permute(3, 0, 1, 2, 4).reshape(4, -1)
    made = prefix(base, tokens=4)
    adapter = type(made)("prefix_tuning", made.config, {f"{INPUT}.prompt_embeddings": table}, made.manifest)
    want = base.logits(torch.cat([first, ids[1:2]], dim=1))[:, 4:]
    torch.testing.assert_close(base.logits(ids[1:2], adapter=adapter), want, **CLOSE)


def test_rows_are_answered_as_if_they_were_alone(base, ids):
    soft = make_adapter(base, method="prompt_tuning", tokens=4, scale=0.5)
    chosen = [prefix(base), soft, make_adapter(base, rank=4), prefix(base, tokens=3, seed=1)]
    mixed = base.logits(ids, adapter=chosen)
    for row, adapter in enumerate(chosen):
        torch.testing.assert_close(mixed[row : row + 1], base.logits(ids[row : row + 1], adapter=adapter), **CLOSE)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_either_side_changes_nothing(base, ids, side):
    chosen = [prefix(base), None, prefix(base, tokens=2, seed=3), make_adapter(base)]
    mask = torch.zeros_like(ids)
    for row, length in enumerate([11, 7, 5, 3]):
        mask[row, slice(-length, None) if side == "left" else slice(length)] = 1
    mixed = base.logits(ids, adapter=chosen, attention_mask=mask)
    for row, adapter in enumerate(chosen):
        real = mask[row].bool()
        alone = base.logits(ids[row : row + 1, real], adapter=adapter)
        torch.testing.assert_close(mixed[row, real], alone[0], **CLOSE)


def test_cached_answers_of_a_mixed_batch_are_those_of_each_alone():
    base = Base(tiny_llama(vocab_size=8192, max_position_embeddings=128), tokenizer=example_tokenizer())
    chosen = [prefix(base), make_adapter(base), None, prefix(base, tokens=9, seed=2)]
    prompts = ["one", "one two three", "two two", "three"]
    together = base.generate(prompts, adapter=chosen, max_new_tokens=6)
    assert together == [base.generate(p, adapter=a, max_new_tokens=6) for p, a in zip(prompts, chosen, strict=True)]


def test_peft_and_we_load_each_others_folders_and_say_the_same(base, ids, tmp_path):
    adapter = prefix(base)
    adapter.save(tmp_path / "ours")
    want, mask = base.logits(ids, adapter=adapter), torch.ones_like(ids)
    base.detach()
    model = PeftModel.from_pretrained(base.source.location, tmp_path / "ours").eval()
    with torch.no_grad():
        torch.testing.assert_close(model(ids, attention_mask=mask).logits, want, **CLOSE)
    config = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=6)
    theirs = get_peft_model(type(base.source.location)(base.source.location.config).eval(), config)
    fresh = Base(theirs.base_model)
    with torch.no_grad():
        want = theirs.eval()(ids, attention_mask=mask).logits
    theirs.save_pretrained(tmp_path / "theirs")
    loaded = fresh.load(tmp_path / "theirs")
    torch.testing.assert_close(fresh.logits(ids, adapter=loaded), want, **CLOSE)


def test_training_lowers_the_loss_and_leaves_the_base_alone(tmp_path):
    base = Base(EXAMPLE_BASE)
    before = state_digest(base.model)
    adapter = base.train(
        ROWS, method="prefix_tuning", tokens=4, max_steps=8, batch_size=6, logging_steps=1, output=tmp_path
    )
    losses = losses_of(tmp_path)
    assert losses[-1] < losses[0] - 0.3
    assert state_digest(base.model) == before
    again = Base(EXAMPLE_BASE)
    assert again.load(tmp_path / "adapter") == adapter
    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(again.logits(ids, adapter=adapter), base.logits(ids, adapter=adapter))
    scores = base.evaluate(ROWS, adapter=adapter, max_new_tokens=1)
    assert scores["loss"] < scores.base["loss"]


@pytest.mark.parametrize("method", ["prefix_tuning", "prompt_tuning"])
def test_raw_text_trains_and_scores_the_same_tokens_as_without(tmp_path, method):
    base = Base(EXAMPLE_BASE)
    rows = [{"text": "Once upon a time there was a king."}, {"text": "The end."}]
    adapter = base.train(rows, method=method, tokens=3, max_steps=1, learning_rate=1e-9)
    examples = [one.after([9000] * 3) for one in (Example((1, 2, 3), (1, 2, 3)), Example((4, 5), (-100, 5)))]
    assert [one.trained for one in examples] == [2, 1]
    assert base.evaluate(rows, adapter=adapter)["loss"] > 0


def test_what_cannot_be_done_is_refused(base, ids, tmp_path):
    speaking = Base(EXAMPLE_BASE)
    with pytest.raises(ConfigError, match="gradient_checkpointing: the method does not act when"):
        speaking.train(ROWS, method="prefix_tuning", gradient_checkpointing=True)
    adapter = prefix(base)
    with base.using(adapter), pytest.raises(SelectionError, match=r"call base\.logits or base\.generate"):
        base.model(ids)
    other = Base(tiny_llama(num_hidden_layers=3))
    adapter.save(tmp_path / "a")
    (tmp_path / "a" / "adapterkit.json").unlink()
    with pytest.raises(ArtifactError):
        other.load(tmp_path / "a")
    with pytest.raises(ConfigError, match="shape: the base's is"):
        make_adapter(other, method="prefix_tuning", shape=[1, 1, 1])
