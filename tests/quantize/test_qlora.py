"""The method `qlora`: LoRA, on a base that is in 4 or 8 bits for it."""

import logging

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

from adapterkit import Adapter, Base, ConfigError, TargetError
from adapterkit.cli import main
from adapterkit.testing import tiny_llama
from tests.quantize.support import OPTIONS, ROWS, bits

IDS = torch.arange(4, 20)[None]


def said(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "adapterkit"]


def test_a_base_that_is_not_loaded_yet_is_loaded_so(llama_folder, caplog):
    base = Base(llama_folder)
    adapter = base.train(ROWS, method="qlora", **OPTIONS)
    assert base.quantized == "nf4"
    assert adapter.manifest.training["quantize"] == "nf4"
    assert adapter.manifest.training["options"]["gradient_checkpointing"] is True
    assert base.resident == (adapter,)
    assert said(caplog) == []


@pytest.mark.parametrize("quantize", ["nf4", "fp4", "int8"])
def test_it_trains_what_lora_trains_on_such_a_base(llama_folder, quantize):
    options = {**OPTIONS, "gradient_checkpointing": True, "tokens_per_pass": 2048}
    lora = Base(llama_folder, quantize=quantize).train(ROWS, **options)
    qlora = Base(llama_folder, quantize=quantize).train(ROWS, method="qlora", quantize=quantize, **OPTIONS)
    assert lora.tensors.keys() == qlora.tensors.keys()
    assert all(torch.equal(lora.tensors[name], qlora.tensors[name]) for name in lora.tensors)


def test_a_base_that_is_loaded_unquantized_gets_a_twin_and_is_told_what_that_costs(llama_folder, caplog):
    base = Base(llama_folder)
    before = bits(base.model)
    with caplog.at_level(logging.WARNING, logger="adapterkit"):
        adapter = base.train(ROWS, method="qlora", **OPTIONS)
        again = base.train(ROWS, method="qlora", seed=1, **OPTIONS)
    (warning,) = said(caplog)
    assert "its twin in nf4 was loaded to train on, and takes 0.01 GiB more until detach()" in warning
    assert (base.quantized, bits(base.model)) == ("", before)
    assert base.resident == (adapter, again)
    twin = base.quantized_as("nf4")
    assert twin.quantized == "nf4"
    assert twin.resident == ()
    assert twin.tokenizer is base.tokenizer
    same = Base(llama_folder, quantize="nf4").train(ROWS, method="qlora", **OPTIONS)
    assert same.digest == adapter.digest
    base.detach()
    assert base.quantized_as("nf4") is not twin


def test_a_base_in_another_format_is_refused_by_both_names(llama_folder):
    base = Base(llama_folder, quantize="int8")
    with pytest.raises(ConfigError, match="quantize='nf4' is asked for, and the base is in int8"):
        base.train(ROWS, method="qlora", **OPTIONS)


def test_a_model_object_that_is_not_quantized_is_refused_with_the_cure(tokenizer):
    with pytest.raises(ConfigError, match=r"model object that is not quantized: .*Base\(location, quantize='nf4'\)"):
        Base(tiny_llama(vocab_size=8192), tokenizer=tokenizer).train(ROWS, method="qlora", **OPTIONS)


def test_a_format_that_is_not_there_is_an_error_of_the_options(llama_folder):
    with pytest.raises(
        ConfigError, match="quantize: must be one of 'nf4', 'fp4', 'int8', not 'nf5'; did you mean 'nf4'"
    ):
        Base(llama_folder).train(ROWS, method="qlora", quantize="nf5", **OPTIONS)


def test_its_adapter_is_read_here_and_by_stock_peft_on_the_unquantized_base(llama_folder, tmp_path):
    adapter = Base(llama_folder).train(ROWS, method="qlora", output=tmp_path, **OPTIONS)
    assert Adapter.load(tmp_path / "adapter").config.quantize == "nf4"
    base = Base(llama_folder)
    mine = base.logits(IDS, adapter=base.load(tmp_path / "adapter"))
    assert base.resident == (adapter,)
    plain = AutoModelForCausalLM.from_pretrained(llama_folder, dtype=torch.float32)
    theirs = peft.PeftModel.from_pretrained(plain, tmp_path / "adapter")
    with torch.no_grad():
        torch.testing.assert_close(mine, theirs(IDS).logits, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(mine, base.logits(IDS), atol=1e-3)


@pytest.mark.parametrize("of_method", [["--method", "qlora", "--quantize", "fp4"], ["--quantize", "fp4"]])
def test_the_command_line_trains_and_answers_in_four_bits(llama_folder, tmp_path, capsys, of_method):
    data = tmp_path / "rows.csv"
    data.write_text("prompt,completion\nIs it?,yes\nWas it?,no\n", encoding="utf-8")
    out = tmp_path / "out"
    words = ["train", str(llama_folder), str(data), "--output", str(out), "--max-steps", "1", *of_method]
    assert main(words) == 0
    adapter = Adapter.load(out / "adapter")
    assert adapter.manifest.training["quantize"] == "fp4"
    assert adapter.method == ("qlora" if "qlora" in of_method else "lora")
    more = ["--adapter", str(out / "adapter"), "--quantize", "nf4", "--max-new-tokens", "2"]
    assert main(["generate", str(llama_folder), "Is it?", *more]) == 0
    assert main(["evaluate", str(llama_folder), str(data), "--json", *more]) == 0
    capsys.readouterr()
    assert main(["generate", str(llama_folder), "Is it?", "--quantize", "nf5"]) == 1
    assert "did you mean 'nf4'" in capsys.readouterr().err


def test_a_run_that_fails_leaves_a_base_that_was_not_loaded_as_it_was(llama_folder):
    base = Base(llama_folder)
    with pytest.raises(TargetError):
        base.train(ROWS, method="qlora", target_modules=("nope",))
    assert base.quantized == ""
    assert not any(site.is_quantized for site in base.sites)
