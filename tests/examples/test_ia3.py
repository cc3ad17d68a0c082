"""IA3 as a third party writes it: in a few lines, added as a file, beside the bundled methods, and in PEFT's form."""

import warnings

import peft
import pytest
import torch

from adapterkit import ArtifactError, Base, Registry
from adapterkit.testing import tiny_gpt2, tiny_llama
from tests.support import EXAMPLE_BASE, ROOT, code_lines, state_digest

PLUGIN = ROOT / "examples" / "adapterkit-ia3" / "src" / "adapterkit_ia3.py"
MOST_LINES = 40
CLOSE = {"atol": 1e-5, "rtol": 0}
PEFT_OPTIONS = {
    tiny_llama: {"target_modules": ["k_proj", "v_proj", "down_proj"], "feedforward_modules": ["down_proj"]},
    tiny_gpt2: {"target_modules": ["c_attn", "mlp.c_proj"], "feedforward_modules": ["mlp.c_proj"]},
}


def base_with_ia3(model=EXAMPLE_BASE):
    registry = Registry()
    registry.add(PLUGIN)
    return Base(model, registry=registry)


@pytest.fixture(scope="module")
def base():
    return base_with_ia3()


def test_it_is_few_lines():
    assert code_lines(PLUGIN.read_text()) <= MOST_LINES


def test_lines_are_counted():
    assert (
        code_lines(
            '"""Text\nof two lines."""\n\nx = (  # why\n    1,\n)\n\n\ndef f():\n    """More."""\n    return x\n'
        )
        == 5
    )


def test_it_trains_saves_loads_and_shares_a_batch_with_lora(base, tmp_path):
    before = state_digest(base.model)
    rows = [{"prompt": "Where is my card?", "completion": "card_arrival"}]
    scaled = base.train(rows, method="ia3", max_steps=15, learning_rate=0.1, output=tmp_path / "out")
    ranked = base.train(rows, method="lora", rank=4, max_steps=10, learning_rate=3e-3)
    assert base.generate("Where is my card?", adapter=scaled) == "card_arrival"

    again = base_with_ia3()
    loaded = again.load(tmp_path / "out" / "adapter")
    assert loaded == scaled
    assert loaded.manifest.plugin == "adapterkit_ia3.py"

    ids = base.tokenizer("Where is my card?", return_tensors="pt")["input_ids"].repeat(3, 1)
    choice = [scaled, ranked, None]
    mixed = base.logits(ids, adapter=choice)
    for row, adapter in enumerate(choice):
        torch.testing.assert_close(mixed[row : row + 1], base.logits(ids[:1], adapter=adapter), atol=1e-3, rtol=0)
        torch.testing.assert_close(again.logits(ids[:1], adapter=adapter), base.logits(ids[:1], adapter=adapter))
    assert not torch.allclose(mixed[0], mixed[2], atol=1e-1)
    assert state_digest(base.model) == before


@pytest.mark.parametrize("make", PEFT_OPTIONS)
def test_what_peft_trained_acts_the_same_here_and_goes_back_as_it_came(make, ids, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT says that GPT-2's layers are stored transposed
        theirs = peft.get_peft_model(make(), peft.IA3Config(task_type="CAUSAL_LM", **PEFT_OPTIONS[make]))
    for name, parameter in theirs.named_parameters():
        if "ia3_l" in name:
            parameter.data = torch.rand_like(parameter) + 0.5
    theirs.save_pretrained(tmp_path / "theirs")
    base = base_with_ia3(make())
    adapter = base.load(tmp_path / "theirs")
    with torch.no_grad():
        want = theirs(ids).logits
    torch.testing.assert_close(base.logits(ids, adapter=adapter), want, **CLOSE)
    adapter.save(tmp_path / "ours", registry=base.registry)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        back = peft.PeftModel.from_pretrained(make(), tmp_path / "ours")(ids).logits
    torch.testing.assert_close(back, want, **CLOSE)


def test_a_part_of_a_folder_of_peft_that_is_not_ia3_is_refused(tmp_path):
    options = {**PEFT_OPTIONS[tiny_llama], "modules_to_save": ["lm_head"]}
    theirs = peft.get_peft_model(tiny_llama(), peft.IA3Config(task_type="CAUSAL_LM", **options))
    theirs.get_output_embeddings().weight.data += 1  # trained: a copy of the base's own weight would say nothing
    theirs.save_pretrained(tmp_path / "theirs")
    with pytest.raises(ArtifactError, match="lm_head"):
        base_with_ia3(tiny_llama()).load(tmp_path / "theirs")
