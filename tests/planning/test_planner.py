import json
import shutil

import pytest

from adapterkit import Base
from adapterkit.cli import main
from adapterkit.errors import BaseLoadError, ConfigError, DataError, UnknownNameError
from adapterkit.planning import plan
from adapterkit.planning.limits import largest
from adapterkit.planning.planner import SPARE
from adapterkit.testing import tiny_llama
from tests.support import EXAMPLE_BASE

ROWS = [{"prompt": f"Say {n} things about cards", "completion": "one " * n} for n in range(1, 20)]
QUICK = {"method": "lora", "limits": False}


@pytest.fixture(scope="module")
def without_weights(tmp_path_factory):
    """The base of the examples, and no weights."""
    folder = tmp_path_factory.mktemp("base")
    for file in EXAMPLE_BASE.iterdir():
        if file.suffix != ".safetensors":
            shutil.copy(file, folder)
    return folder


@pytest.fixture(scope="module")
def compared(without_weights):
    task = {"rows": 1000, "goal": "style", "batch_size": 4, "max_length": 512, "limits": False}
    return plan(str(without_weights), device="RTX 3060", **task)


def test_no_weight_is_needed(compared):
    assert compared.parameters == sum(one.numel() for one in Base(EXAMPLE_BASE).model.parameters())
    assert [*compared] == ["lora", "qlora", "prompt_tuning", "full"]
    for one in compared.estimates.values():
        assert one.fits
        assert one.memory.total > one.memory.allocated > sum(one.memory.weights.values()) > 0
        assert one.tokens_per_second > 0 < one.seconds


def test_methods_differ_as_they_do(compared):
    trained = {name: one.parameters for name, one in compared.estimates.items()}
    assert trained["prompt_tuning"] < trained["lora"] == trained["qlora"] < trained["full"] == compared.parameters
    weights = {name: sum(one.memory.weights.values()) for name, one in compared.estimates.items()}
    assert weights["qlora"] < weights["lora"] == weights["full"]
    assert compared["full"].memory.optimizer > 8 * trained["full"] > compared["lora"].memory.optimizer


def test_the_parts_are_the_whole(compared):
    memory = compared.asked.memory
    parts = (memory.adapter, memory.gradients, memory.optimizer, memory.activations, memory.working, memory.workspace)
    assert memory.total == sum(memory.weights.values()) + sum(parts) + memory.cached + memory.context


def test_it_is_said_as_a_table_and_as_json(compared):
    text = str(compared)
    for word in ("lora", "prompt_tuning", "activations", "advice for 'style'", "RTX 3060", "estimates"):
        assert word in text
    values = json.loads(json.dumps(compared.to_json()))
    assert values["estimates"]["lora"]["memory"]["total"] == compared["lora"].memory.total
    assert values["advice"]["ranking"][0]["way"] == compared.advice.best.way


def test_what_was_not_planned_for_is_an_error_that_names_what_was(compared):
    with pytest.raises(UnknownNameError, match="no estimate for method 'ia3'"):
        compared["ia3"]


def test_data_is_counted_as_training_counts_it(example_base):
    found = plan(str(EXAMPLE_BASE), data=ROWS, device="24GB", max_length=32, **QUICK).rows
    adapter = example_base.train(ROWS, max_steps=1, rank=2, max_length=32)
    example_base.unload(adapter)
    seen = adapter.manifest.training["data"]
    assert found.counted
    assert (found.rows, found.tokens, found.trained) == (seen["rows"], seen["tokens"], seen["trained_tokens"])
    assert found.longest <= 32


def test_time_and_money_follow_from_tokens_and_price(without_weights):
    one = plan(str(without_weights), device="L4", rows=100, price_per_hour=2.0, max_length=256, epochs=3, **QUICK).asked
    assert one.seconds == pytest.approx(3 * 100 * 256 / one.tokens_per_second)
    assert one.cost == pytest.approx(one.seconds / 3600 * 2.0)
    steps = plan(str(without_weights), device="L4", rows=100, max_length=256, max_steps=5, batch_size=2, **QUICK).asked
    assert steps.seconds == pytest.approx(5 * 2 * 256 / steps.tokens_per_second)


def test_of_a_size_there_is_memory_and_no_time(without_weights):
    made = plan(str(without_weights), device="2GB", rows=100, max_length=128, **QUICK)
    assert made.asked.fits
    assert made.asked.tokens_per_second is made.asked.seconds is made.asked.cost is None
    assert "name a device for time and cost" in str(made)


def test_options_are_chosen_so_that_it_fits_the_fastest_first():
    model = tiny_llama(hidden_size=256, intermediate_size=4096, vocab_size=4096)
    task = {"rows": 8, "batch_size": 64, "max_length": 512, **QUICK}
    roomy, tight, tiny = (plan(Base(model), device=size, **task).asked for size in ("24GB", "3.3GB", "2GB"))
    assert roomy.options == {}
    assert roomy.fits
    assert tight.options == {"gradient_checkpointing": True}
    assert tight.fits
    assert tiny.options["tokens_per_pass"] < 64 * 512
    assert tiny.memory.total < tight.memory.total < roomy.memory.total


def test_what_was_asked_for_stays(without_weights):
    task = {"rows": 8, "device": "1GB", "batch_size": 64, "max_length": 1024, **QUICK}
    one = plan(str(without_weights), gradient_checkpointing=False, tokens_per_pass=None, **task).asked
    assert one.options == {}
    assert not one.fits
    assert "gradient_checkpointing" not in one.options


@pytest.mark.slow
def test_the_largest_batch_fits_and_a_larger_one_does_not(without_weights):
    task = {"rows": 8, "device": "6GB", "max_length": 512, "method": "lora", "gradient_checkpointing": False}
    asked = plan(str(without_weights), tokens_per_pass=None, **task).asked
    most = asked.largest_batch
    assert 8 < most < 1000
    assert asked.longest_context == 1024, "what the base itself can do"
    for rows, fits in ((round(most * 0.98), True), (round(most * 1.03), False)):
        again = plan(str(without_weights), batch_size=rows, tokens_per_pass=None, limits=False, **task)
        assert again.asked.fits is fits
        assert (again.asked.memory.total <= again.device.memory * (1 - SPARE)) is fits


def test_a_method_that_cannot_is_said_to_and_the_others_are_planned(without_weights):
    task = {"device": "24GB", "limits": False, "gradient_checkpointing": True}
    made = plan(str(without_weights), methods=("lora", "prefix_tuning"), **task)
    assert "gradient_checkpointing" in made["prefix_tuning"].reason
    assert made.asked.memory is not None
    assert "prefix_tuning: gradient_checkpointing" in str(made)


def test_one_method_is_planned_where_one_is_named(without_weights):
    assert [*plan(str(without_weights), device="24GB", method="qlora", limits=False)] == ["qlora"]


def test_options_of_one_method_are_not_asked_of_another(without_weights):
    made = plan(str(without_weights), rank=4, methods=("lora", "prompt_tuning"), device="24GB", limits=False)
    assert made["lora"].rank == 4
    assert not made["prompt_tuning"].reason


def test_a_loaded_base_and_its_precision(llama):
    assert "float32" in plan(llama, device="24GB", **QUICK).asked.memory.weights
    packed = Base(EXAMPLE_BASE, quantize="nf4")
    assert "nf4" in plan(packed, device="24GB", **QUICK).asked.memory.weights
    assert "_loaded" not in packed.__dict__, "a base that is not loaded stays so"


def test_on_a_cpu_the_base_is_in_float32(without_weights):
    made = plan(str(without_weights), device="cpu", rows=10, **QUICK)
    assert set(made.asked.memory.weights) == {"float32"}
    assert made.asked.memory.context == 0
    assert made.asked.cost is None
    assert made.asked.seconds > 0
    assert "nothing of it was measured" in str(made)


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"rnak": 4}, ConfigError, "did you mean 'rank'"),
        ({"device": "RTX 4091"}, UnknownNameError, "did you mean 'RTX 4090'"),
        ({"method": "lroa"}, UnknownNameError, "did you mean 'lora'"),
        ({"goal": "stile"}, UnknownNameError, "did you mean 'style'"),
        ({"rows": 0}, ConfigError, "at least 1"),
        ({"rows": 3, "data": ROWS}, ConfigError, "give one of the two"),
        ({"data": [{"a": 1}]}, DataError, ""),
        ({"dtype": "int4"}, BaseLoadError, "not one of auto"),
    ],
)
def test_mistakes_are_said(without_weights, given, error, said):
    with pytest.raises(error, match=said):
        plan(str(without_weights), **{"device": "24GB", **QUICK, **given})


def test_a_base_that_is_not_there_or_is_stored_strangely(tmp_path, without_weights):
    with pytest.raises(BaseLoadError, match="holds no model"):
        plan(str(tmp_path), device="24GB", **QUICK)
    with pytest.raises(BaseLoadError, match="no folder"):
        plan("./nowhere", device="24GB", **QUICK)
    strange = shutil.copytree(without_weights, tmp_path / "strange")
    config = json.loads((strange / "config.json").read_text())
    (strange / "config.json").write_text(
        json.dumps({**config, "quantization_config": {"quant_method": "gptq", "bits": 4}})
    )
    with pytest.raises(BaseLoadError, match="stored in 'gptq'"):
        plan(str(strange), device="24GB", **QUICK)


def test_a_dtype_that_no_configuration_says_is_read_from_the_headers(tmp_path, without_weights):
    folder = shutil.copytree(without_weights, tmp_path / "silent")
    config = json.loads((folder / "config.json").read_text())
    del config["dtype"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(BaseLoadError, match="says nowhere what its weights are in"):
        plan(str(folder), device="24GB", **QUICK)
    shutil.copy(EXAMPLE_BASE / "model.safetensors", folder)
    assert "bfloat16" in plan(str(folder), device="24GB", **QUICK).asked.memory.weights


@pytest.mark.parametrize("room", range(0, 40, 3))
def test_the_largest_number_is_found(room):
    assert largest(lambda n: 3 * n + 4, room, 0, 9) == max([n for n in range(10) if n == 0 or 3 * n + 4 <= room])


def test_on_the_command_line(without_weights, tmp_path, capsys):
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, ROWS)))
    line = ["plan", str(without_weights), "--data", str(file), "--device", "24GB", "--methods", "lora", "--no-limits"]
    assert main([*line, "--rank", "4", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["rows"]["rows"] == len(ROWS)
    assert values["estimates"]["lora"]["rank"] == 4
    assert main([*line, "--goal", "facts"]) == 0
    shown = capsys.readouterr().out
    assert "advice for 'facts'" in shown
    assert "documents looked up" in shown
    assert main(["plan", str(without_weights), "--device", "abacus"]) == 2
    assert "no device 'abacus'" in capsys.readouterr().err
    assert main(["plan", str(without_weights), "--data", str(tmp_path / "none.csv")]) == 2
