"""Soft prompts: positions before the sequence, as PEFT has them, beside anything else in one batch."""

import attrs
import pytest
import torch
from peft import PeftModel, PromptEncoderConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import MistralConfig, MistralForCausalLM

from adapterkit import INPUT, Adapter, ArtifactError, Base, ConfigError, DataError, SelectionError, Text
from adapterkit.testing import tiny_llama
from adapterkit.testing.models import SIZES
from tests.sample_tokenizers import example_tokenizer
from tests.support import EXAMPLE_BASE, FAMILIES, losses_of, make_adapter, state_digest

CLOSE = {"atol": 1e-5, "rtol": 0}
ROWS = [{"prompt": f"say {n}", "completion": word} for n, word in enumerate(["one", "two", "three"] * 4)]
METHODS = ["prompt_tuning", "p_tuning"]


@pytest.fixture(params=FAMILIES)
def base(request):
    return Base(FAMILIES[request.param]())


@pytest.fixture(scope="module")
def tokenizer():
    return example_tokenizer()


def speaking(tokenizer):
    return Base(tiny_llama(vocab_size=8192, max_position_embeddings=128), tokenizer=tokenizer)


@pytest.fixture
def ids():
    return torch.randint(1, 97, (4, 11), generator=torch.Generator().manual_seed(0))


def soft(base, method="prompt_tuning", tokens=5, seed=0, **options):
    adapter = make_adapter(base, method=method, tokens=tokens, seed=seed, scale=0.5, **options)
    return adapter if method == "prompt_tuning" else folded(adapter)


def folded(adapter):
    """A p-tuning adapter as it is after training: the table alone."""
    table = torch.randn(adapter.config.tokens, adapter.config.hidden_size, generator=torch.Generator().manual_seed(1))
    config = attrs.evolve(adapter.config, inference_mode=True)
    return Adapter("p_tuning", config, {f"{INPUT}.prompt_embeddings": table}, adapter.manifest)


def test_a_prompt_is_embeddings_before_the_sequence(base, ids):
    adapter = soft(base)
    table = adapter.tensors[f"{INPUT}.prompt_embeddings"]
    with torch.no_grad():
        known = base.model.get_input_embeddings()(ids)
        whole = torch.cat([table.expand(len(ids), -1, -1), known], dim=1)
        want = base.model(inputs_embeds=whole).logits[:, 5:]
    torch.testing.assert_close(base.logits(ids, adapter=adapter), want, **CLOSE)


def test_rows_are_answered_as_if_they_were_alone(base, ids):
    chosen = [soft(base), make_adapter(base, rank=4), soft(base, tokens=3, seed=1), None]
    mixed = base.logits(ids, adapter=chosen)
    for row, adapter in enumerate(chosen):
        torch.testing.assert_close(mixed[row : row + 1], base.logits(ids[row : row + 1], adapter=adapter), **CLOSE)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_either_side_changes_nothing(base, ids, side):
    chosen = [soft(base), None, soft(base, tokens=2, seed=3), make_adapter(base)]
    lengths = [11, 7, 5, 3]
    mask = torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        mask[row, slice(-length, None) if side == "left" else slice(length)] = 1
    mixed = base.logits(ids, adapter=chosen, attention_mask=mask)
    for row, adapter in enumerate(chosen):
        real = mask[row].bool()
        alone = base.logits(ids[row : row + 1, real], adapter=adapter)
        torch.testing.assert_close(mixed[row, real], alone[0], **CLOSE)


def test_cached_generation_is_greedy_decoding_step_by_step(tokenizer):
    base = speaking(tokenizer)
    chosen = [soft(base), make_adapter(base), None, soft(base, tokens=9, seed=2)]
    prompts = ["one", "one two three", "two two", "three"]
    together = base.generate(prompts, adapter=chosen, max_new_tokens=6)
    assert together == [base.generate(p, adapter=a, max_new_tokens=6) for p, a in zip(prompts, chosen, strict=True)]
    ids = torch.tensor([tokenizer("one two three")["input_ids"]])
    for _ in range(6):
        ids = torch.cat([ids, base.logits(ids, adapter=chosen[0])[:, -1:].argmax(-1)], dim=1)
    stepwise = tokenizer.decode(ids[0, -6:], skip_special_tokens=True)
    assert base.generate([Text("one two three")], adapter=chosen[0], max_new_tokens=6) == [stepwise.strip()]


@pytest.mark.parametrize("method", METHODS)
def test_peft_loads_what_we_save_and_says_the_same(base, ids, tmp_path, method):
    adapter = soft(base, method)
    adapter.save(tmp_path / "ours")
    want = base.logits(ids, adapter=adapter)
    base.detach()
    model = PeftModel.from_pretrained(base.model, tmp_path / "ours").eval()
    with torch.no_grad():
        torch.testing.assert_close(model(ids, attention_mask=torch.ones_like(ids)).logits[:, 5:], want, **CLOSE)


@pytest.mark.parametrize(
    "config",
    [
        PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=6),
        PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=6, prompt_tuning_init="SAMPLE_VOCAB"),
        PromptEncoderConfig(task_type="CAUSAL_LM", num_virtual_tokens=6, encoder_hidden_size=16),
        PromptEncoderConfig(
            task_type="CAUSAL_LM", num_virtual_tokens=6, encoder_hidden_size=32, encoder_reparameterization_type="LSTM"
        ),
    ],
)
def test_we_load_what_peft_saves_and_say_the_same(ids, tmp_path, config):
    model = get_peft_model(tiny_llama(), config).eval()
    with torch.no_grad():
        want = model(ids, attention_mask=torch.ones_like(ids)).logits[:, 6:]
    model.save_pretrained(tmp_path)
    base = Base(tiny_llama())
    adapter = base.load(tmp_path)
    assert adapter.parameters == 6 * 32
    torch.testing.assert_close(base.logits(ids, adapter=adapter), want, **CLOSE)


@pytest.mark.parametrize("method", METHODS)
def test_training_lowers_the_loss_and_leaves_the_base_alone(tmp_path, method):
    base = Base(EXAMPLE_BASE)
    before = state_digest(base.model)
    options = {"tokens": 4, "max_steps": 12, "batch_size": 6, "logging_steps": 1}
    adapter = base.train(ROWS, method=method, output=tmp_path, **options)
    losses = losses_of(tmp_path)
    assert losses[-1] < losses[0] - 0.3
    assert adapter.parameters == 4 * 256, "what is kept is the table alone"
    assert state_digest(base.model) == before
    again = Base(EXAMPLE_BASE)
    loaded = again.load(tmp_path / "adapter")
    assert loaded == adapter
    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(again.logits(ids, adapter=loaded), base.logits(ids, adapter=adapter))


def test_packed_rows_each_have_their_own_prompt(tokenizer):
    """One step on packed rows is the step on padded ones."""
    trained = []
    for packing in (True, False):
        base = speaking(tokenizer)
        options = {"tokens": 3, "max_steps": 2, "batch_size": 6, "learning_rate": 1e-3}
        trained.append(base.train(ROWS, method="prompt_tuning", packing=packing, **options))
    one, other = (adapter.tensors[f"{INPUT}.prompt_embeddings"] for adapter in trained)
    torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


@pytest.mark.parametrize("text", ["yes and no", None])
def test_it_starts_from_tokens_that_the_base_knows(tokenizer, text):
    base = speaking(tokenizer)
    adapter = base.train(ROWS, method="prompt_tuning", tokens=5, max_steps=1, learning_rate=1e-12, init_text=text)
    table, known = adapter.tensors[f"{INPUT}.prompt_embeddings"], base.model.get_input_embeddings().weight
    nearest = torch.cdist(table, known).argmin(dim=1)
    torch.testing.assert_close(table, known[nearest], atol=1e-6, rtol=0)
    if text:
        assert nearest.tolist() == (tokenizer(text, add_special_tokens=False)["input_ids"] * 5)[:5]


def test_a_random_start_has_the_size_of_the_vocabulary_and_is_not_of_it(tokenizer):
    base = speaking(tokenizer)
    adapter = base.train(ROWS, method="prompt_tuning", tokens=40, init="random", max_steps=1, learning_rate=1e-12)
    table, known = adapter.tensors[f"{INPUT}.prompt_embeddings"], base.model.get_input_embeddings().weight
    assert float(table.std()) == pytest.approx(float(known.std()), rel=0.2)
    assert float(torch.cdist(table, known).min()) > 1e-3


def test_a_call_that_leaves_no_room_for_the_prompt_is_refused(base, ids):
    base.use(soft(base))
    with pytest.raises(SelectionError, match=r"call base\.logits or base\.generate"):
        base.model(ids)
    with pytest.raises(SelectionError, match="token ids, not embeddings"):
        base.model(inputs_embeds=torch.zeros(1, 2, 32))
    base.use(None)
    assert base.model(ids).logits.shape == (4, 11, 97)


def test_wrong_sizes_and_strange_tensors_are_refused(base, tmp_path, tokenizer):
    with pytest.raises(ConfigError, match="hidden_size: the base's is 32, not 64"):
        soft(base, hidden_size=64)
    soft(base).save(tmp_path / "a")
    (tmp_path / "a" / "adapterkit.json").unlink()
    path = tmp_path / "a" / "adapter_model.safetensors"
    good = load_file(path)
    for bad in ({"prompt_embeddings": torch.zeros(5, 31)}, {**good, "base_model.model.lm_head.weight": torch.ones(2)}):
        save_file({name: tensor + 1 for name, tensor in bad.items()}, path)
        with pytest.raises(ArtifactError):
            base.load(tmp_path / "a")


def test_text_without_tokens_is_nothing_to_start_from(tokenizer):
    base = speaking(tokenizer)
    with pytest.raises(ConfigError, match="has no tokens"):
        base.train(ROWS, method="prompt_tuning", init_text="", max_steps=1)


@pytest.mark.parametrize(
    ("rows", "first", "reason"),
    [
        ([0, 0], [[97, 98, 99], [1, 1, 1]], "no room"),
        ([0, 0], [[1, 97, 98], [1, 97, 98]], "not those of the row's own"),
        ([0, 0], [[97, 98, 99], [97, 98, 150]], "not those of the row's own"),
        ([0, None], [[97, 98, 99], [97, 98, 99]], "not those of the row's own"),
        ([0, 1], [[100, 101, 102], [97, 98, 99]], "no room"),
        ([0, 1, None], [[97, 98, 99], [100, 101, 102]], "3 adapters for 2 rows"),
    ],
)
def test_a_row_without_all_its_own_virtual_tokens_or_with_others_is_refused(ids, rows, first, reason):
    base = Base(tiny_llama())
    made = [soft(base, tokens=3), soft(base, tokens=3, seed=1)]
    given = torch.cat([torch.tensor(first), ids[:2]], dim=1)
    with (
        base.using([None if row is None else made[row] for row in rows]),
        pytest.raises(SelectionError, match=reason),
    ):
        base.model(given)


@pytest.mark.parametrize("alone", [True, False])
def test_an_id_beyond_the_vocabulary_is_not_taken_for_a_virtual_token(ids, alone):
    base = Base(tiny_llama())
    adapter = soft(base, tokens=3)
    ids[1, 2] = 98
    with pytest.raises(DataError, match="token 98 is given, and the base knows 97"):
        base.logits(ids[:2], adapter=adapter if alone else [adapter, None])


def test_rows_that_outgrow_the_attention_window_by_their_virtual_tokens_are_not_packed(tokenizer, caplog):
    config = {"sliding_window": 32, "vocab_size": 8192, "max_position_embeddings": 128}
    base = Base(MistralForCausalLM(MistralConfig(**{**SIZES, **config})), tokenizer=tokenizer)
    base.train(ROWS, method="prompt_tuning", tokens=30, max_steps=1)
    assert "is longer than the attention window" in caplog.text
