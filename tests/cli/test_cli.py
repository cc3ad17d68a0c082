"""The command line: options come from the method, data goes to stdout, talk to stderr, and a misuse is exit code 2."""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap

import pytest

from adapterkit import Adapter
from adapterkit.cli import main
from adapterkit.testing import tiny_llama
from tests.support import EXAMPLE_BASE, ROOT

COLUMNS = ["--columns.prompt", "text", "--columns.completion", "category"]
PLUGIN = """
    import attrs
    import torch
    from torch import nn

    from adapterkit import LayerMethod, hookimpl


    @attrs.frozen
    class ShiftConfig:
        start: float = 0.0
        \"\"\"Where the shift begins.\"\"\"
        target_modules: str | tuple[str, ...] = "all-linear"
        \"\"\"Which layers are shifted.\"\"\"


    class Shift(nn.Module):
        def __init__(self, site, config):
            super().__init__()
            self.vector = nn.Parameter(torch.full((site.out_features,), config.start))

        def forward(self, x, y):
            return y + self.vector


    @hookimpl
    def adapterkit_methods():
        yield LayerMethod("shift", ShiftConfig, Shift, summary="adds a vector")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small base with the tokenizer of the examples, a file of rows, and a plugin."""
    folder = tmp_path_factory.mktemp("cli")
    tiny_llama(vocab_size=8192, max_position_embeddings=128).save_pretrained(folder / "base")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(EXAMPLE_BASE / name, folder / "base" / name)
    rows = "".join(f"where is card number {n}?,{('lost', 'on its way')[n % 2]}\n" for n in range(8))
    (folder / "rows.csv").write_text("text,category\n" + rows)
    (folder / "shift.py").write_text(textwrap.dedent(PLUGIN))
    return folder


@pytest.fixture
def run(folder, capsys, monkeypatch):
    """Runs a command in the folder; gives exit code, stdout and stderr."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments):
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def train(run, tmp_path):
    def call(*options):
        return run("train", "base", "rows.csv", "--output", tmp_path / "out", "--max-steps", 1, *COLUMNS, *options)

    return call


@pytest.fixture(scope="module")
def trained(folder):
    output = folder / "trained"
    arguments = ["train", folder / "base", folder / "rows.csv", "--output", output, "--rank", "2", *COLUMNS]
    assert main([*map(str, arguments), "--max-steps", "3", "--learning-rate", "0.05"]) == 0
    return output / "adapter"


def process(*arguments, path=(), **options):
    """The command in a process of its own."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path)), "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
    command = [
        sys.executable,
        "-c",
        "import sys; from adapterkit.cli import main; sys.exit(main())",
        *map(str, arguments),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environ, timeout=120, **options)


def plain(text):
    """Help without its boxes, on one line."""
    return " ".join(re.sub("[│╭╮╰╯─]", " ", text).split())


# -- train ------------------------------------------------------------------------------------------------------------


def test_train_prints_the_adapters_folder_and_nothing_else(train, tmp_path):
    code, out, err = train("--rank", 2)
    assert (code, out) == (0, f"{tmp_path / 'out' / 'adapter'}\n")
    said = r"[\d,]+ parameters trained; digest [0-9a-f]{64}\n.*Perplexity of general text: [+-][\d.]+%\.\nreport: .*report\.html\n"
    assert re.fullmatch(said, err), "no bars, no warnings"
    assert Adapter.load(tmp_path / "out" / "adapter").config.rank == 2


def test_train_with_json_prints_one_object(train, tmp_path):
    code, out, err = train("--rank", 2, "--json")
    said = json.loads(out)
    assert (code, err) == (0, "")
    assert said["adapter"] == str(tmp_path / "out" / "adapter")
    assert said["digest"] == Adapter.load(said["adapter"]).digest
    assert said["options"]["learning_rate"] == 3e-4, "the method's own default"


@pytest.mark.parametrize(
    ("options", "field", "value"),
    [
        (["--target-modules", "q_proj", "v_proj"], "target_modules", ("q_proj", "v_proj")),
        (["--target-modules", "q_proj", "--target-modules", "v_proj"], "target_modules", ("q_proj", "v_proj")),
        (["--target-modules", "q_proj"], "target_modules", ("q_proj",)),
        (["--target-modules", r".*\.0\..*q_proj"], "target_modules", ("model.layers.0.self_attn.q_proj",)),
        (["--target-modules", "q_proj", "v_proj", "--exclude-modules", "v_proj"], "target_modules", ("q_proj",)),
        (["--rank-pattern.q_proj", "3", "--rank-pattern.v_proj", "4"], "rank_pattern", {"q_proj": 3, "v_proj": 4}),
        (["--rank-pattern", '{"layers.0.self_attn.q_proj": 3}'], "rank_pattern", {"layers.0.self_attn.q_proj": 3}),
        (["--alpha", "5"], "alpha", 5.0),
        (["--use-rslora"], "use_rslora", True),
        (["--no-use-rslora"], "use_rslora", False),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_methods_options_are_options_of_train(train, tmp_path, options, field, value):
    code, _, err = train("--rank", 2, *options)
    assert code == 0, err
    assert getattr(Adapter.load(tmp_path / "out" / "adapter").config, field) == value


def test_held_out_rows_are_evaluated(train):
    code, out, _ = train("--eval-data", "rows.csv", "--json")
    assert code == 0
    assert json.loads(out)["eval_loss"] > 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--rnak", "4"], "Unknown option: --rnak. Did you mean --rank?"),
        (["--rank", "many"], "--rank"),
        (["--rank", "0"], "rank: must be >= 1: 0"),
        (["--lr-scheduler-type", "cosin"], 'Did you mean "cosine"?'),
        (["--method", "lroa"], "no method 'lroa'; did you mean 'lora'? Available: full, lora,"),
        (["--target-modules", "q_porj"], "no target module 'q_porj'; did you mean 'q_proj'?"),
        (["--eval-data", "row.csv"], "--eval-data does not fit: - no file 'row.csv'; did you mean 'rows.csv'?"),
        (["surplus"], "surplus"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_misuse_is_exit_code_2_and_says_what_would_have_worked(train, tmp_path, options, said):
    code, out, err = train(*options)
    assert (code, out) == (2, "")
    assert said in plain(err)
    assert not (tmp_path / "out" / "adapter").exists()


@pytest.mark.parametrize("command", [["train", "base", "nope.csv", "--output", "x"], ["evaluate", "base", "nope.csv"]])
def test_a_data_file_that_is_not_there_is_said_before_the_base_is_loaded(run, command, monkeypatch):
    monkeypatch.setattr("adapterkit.shared.load_base", lambda source: pytest.fail("the base was loaded"))
    code, out, err = run(*command)
    assert (code, out) == (2, "")
    assert "no file 'nope.csv'; did you mean 'rows.csv'? Data files in '.': rows.csv." in err


@pytest.mark.parametrize("named", ["rows", "rows*0.5+nowhere", "rows*half"])
def test_an_adapter_that_is_not_there_is_said_before_the_base_is_loaded(run, named, monkeypatch):
    monkeypatch.setattr("adapterkit.shared.load_base", lambda source: pytest.fail("the base was loaded"))
    code, out, err = run("generate", "base", "hi", "--adapter", named)
    assert (code, out) == (2, "")
    assert err.startswith("error: --adapter does not fit")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "base", "rows.csv", "--output", "x"], "no data format fits a row of the columns 'text', 'category'"),
        (["generate", "no/such/base", "hi"], "no folder 'no/such/base'"),
        (["generate", "base", "hi", "--adapter", "."], "adapter folder '.' is refused"),
        (["generate", "base", "hi", "--dtype", "float64"], "dtype 'float64' is not one of"),
        (["generate", "base", "hi", "--device", "warp"], "device 'warp' is not there"),
        (["plugins", "--plugin", "nothing.py"], "no plugin file 'nothing.py'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_work_that_fails_is_exit_code_1_and_one_error(run, arguments, said):
    code, out, err = run(*arguments)
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert said in err


# -- generate and evaluate --------------------------------------------------------------------------------------------


def test_generate_prints_one_answer_a_line_in_the_order_of_the_prompts(run, trained):
    both = run("generate", "base", "where is my card?", "hello", "--max-new-tokens", 4)
    assert both[0] == 0
    assert both[2] == ""
    one = run("generate", "base", "hello", "--max-new-tokens", 4)
    assert both[1].splitlines()[1:] == one[1].splitlines()
    adapted = run("generate", "base", "where is my card?", "hello", "--max-new-tokens", 4, "--adapter", trained)
    assert adapted[1] != both[1]


def test_generate_with_json_pairs_prompts_and_answers(run):
    code, out, _ = run("generate", "base", "grüße", "hello", "--max-new-tokens", 3, "--json")
    assert code == 0
    assert [row["prompt"] for row in json.loads(out)] == ["grüße", "hello"]
    assert "grüße" in out


def test_prompts_come_from_standard_input_when_none_are_given(folder, run):
    want = run("generate", "base", "where is my card?", "hello", "--max-new-tokens", 3)[1]
    got = process("generate", "base", "--max-new-tokens", "3", input="where is my card?\nhello\n", cwd=folder)
    assert (got.returncode, got.stdout, got.stderr) == (0, want, "")


def test_a_sample_is_repeatable_from_the_command_line(run):
    arguments = ("generate", "base", "hello", "--max-new-tokens", 8, "--temperature", 1.5, "--top-k", 50, "--seed", 4)
    assert run(*arguments)[1] == run(*arguments)[1] != run(*arguments[:-1], 5)[1]


def test_evaluate_shows_the_base_beside(run, trained):
    code, out, err = run("evaluate", "base", "rows.csv", "--adapter", trained, *COLUMNS, "--json")
    said = json.loads(out)
    assert (code, err, said["rows"]) == (0, "", 8)
    assert said["scores"]["loss"] < said["base"]["loss"]
    code, out, _ = run("evaluate", "base", "rows.csv", "--adapter", trained, *COLUMNS)
    figure = r"\d+\.\d{4} \[\d+\.\d{4}, \d+\.\d{4}\]"
    assert re.search(rf"^loss +{figure} +base {figure}$", out, re.MULTILINE)
    alone = json.loads(run("evaluate", "base", "rows.csv", *COLUMNS, "--json")[1])
    assert (alone["rows"], alone["scores"], alone["base"]) == (8, said["base"], None)
    assert alone["intervals"] == said["base_intervals"]


@pytest.mark.parametrize("option", [["--max-new-tokens", "0"], ["--temperature", "-1"], ["--seed", "-1"]])
def test_values_of_generate_that_do_not_fit_are_a_misuse(run, option):
    code, out, err = run("generate", "base", "hello", *option)
    assert (code, out) == (2, "")
    assert option[0].strip("-").replace("-", "_") in err


# -- plugins ----------------------------------------------------------------------------------------------------------


def test_a_method_in_one_file_trains_and_answers(run, folder, tmp_path):
    for _ in range(2):  # twice in one process: each command has plugins of its own
        code, out, err = run(
            *("train", "base", "rows.csv", "--output", tmp_path / "out", "--plugin", "./shift.py", "--method", "shift"),
            *("--start", 3, "--max-steps", 1, *COLUMNS),
        )
        assert (code, out) == (0, f"{tmp_path / 'out' / 'adapter'}\n"), err
    options = ("--adapter", tmp_path / "out" / "adapter", "--max-new-tokens", 4)
    code, out, _ = run("generate", "base", "hello", "--plugin", "shift.py", *options)
    assert code == 0
    assert out != run("generate", "base", "hello", "--max-new-tokens", 4)[1]
    code, _, err = run("generate", "base", "hello", *options)
    assert code == 1
    assert "it was made by shift.py: no method 'shift'" in err
    code, out, _ = run("train", "--help", "--plugin", "shift.py", "--method", "shift")
    assert "Where the shift begins. [default: 0.0]" in plain(out)
    assert "--rank" not in out


def test_plugins_lists_what_is_there(run):
    code, out, err = run("plugins")
    assert (code, err) == (0, "")
    assert out.splitlines()[0].split() == ["NAME", "STATE", "FROM", "MODULE"]
    listed = json.loads(run("plugins", "--json", "--plugin", "shift.py")[1])
    assert {"lora", "shift"} <= {plugin["name"] for plugin in listed}
    code, out, _ = run("plugins", "--why", "lora")
    assert "provides method lora" in out
    code, _, err = run("plugins", "--why", "lroa")
    assert code == 2
    assert "no plugin 'lroa'; did you mean 'lora'?" in err


def distribution(folder, name, module, source=None):
    """A distribution with a plugin, as pip would leave it; ``source`` is its module."""
    info = folder / f"{name}-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
    (info / "entry_points.txt").write_text(f"[adapterkit]\n{name} = {module}\n")
    if source is not None:
        (folder / f"{module}.py").write_text(source)


def test_a_broken_plugin_is_listed_with_its_reason_and_stops_nothing(tmp_path, folder):
    distribution(tmp_path, "ill", "ill_module", "import nothing_of_that_name")
    distribution(tmp_path, "gone", "gone_module")
    distribution(tmp_path, "vain", "vain_module", "1 / 0")
    listed = {row["name"]: row for row in json.loads(process("plugins", "--json", path=[tmp_path]).stdout)}
    assert listed["ill"]["state"] == listed["vain"]["state"] == "available", "listing imports nothing"
    assert listed["gone"]["state"] == "broken"
    why = process("plugins", "--why", "ill", path=[tmp_path])
    assert (why.returncode, why.stderr) == (0, "")
    assert re.search(r"^ill +broken +ill 1\.5 +ill_module$", why.stdout, re.MULTILINE)
    assert "No module named 'nothing_of_that_name' (ill_module.py, line 1); try `pip install nothing_of" in why.stdout
    assert "ZeroDivisionError" in process("plugins", "--why", "vain", path=[tmp_path]).stdout
    answered = process("generate", "base", "hi", "--max-new-tokens", "2", path=[tmp_path], cwd=folder)
    assert (answered.returncode, answered.stderr) == (0, "")
    asked = process("train", "base", "rows.csv", "--output", "x", "--method", "ill", path=[tmp_path], cwd=folder)
    assert asked.returncode == 2
    assert "no method 'ill': ill 1.5 provides it, but is broken: ModuleNotFoundError" in asked.stderr


# -- help, and how it runs --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ([], ["train", "generate", "evaluate", "plugins"]),
        (["train"], ["--rank", "[default: 16]", "--target-modules", "[default: all-linear]", "[default: 0.0003]"]),
        (["train"], ["Directions of the update at each target.", "--epochs", "--gradient-accumulation-steps"]),
        (["generate"], ["--temperature", "[default: 0.0]", "--adapter", "--max-new-tokens", "[default: 64]"]),
        (["evaluate"], ["--compare", "--batch-size", "[default: 64]", "--columns"]),
        (["plugins"], ["--why", "--check", "--json"]),
    ],
)
def test_help_names_options_and_defaults(run, command, said):
    code, out, err = run(*command, "--help")
    assert (code, err) == (0, "")
    assert [part for part in said if part not in plain(out)] == []


def test_no_command_shows_help_and_an_unknown_one_is_a_misuse(run):
    assert run()[0] == 0
    code, out, err = run("trian")
    assert (code, out) == (2, "")
    assert "train" in err
    assert run("--version") == (0, "0.1.0\n", "")


@pytest.mark.parametrize("arguments", [["plugins"], ["--help"], ["--version"], ["plugins", "--help"]])
def test_what_needs_no_model_imports_no_torch(arguments):
    code = (
        f"import sys; from adapterkit.cli import main; main({arguments!r}); "
        "sys.exit(','.join({'torch', 'transformers', 'numpy', 'accelerate', 'peft'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_installed_command_is_this_one(folder):
    from importlib.metadata import entry_points

    (script,) = entry_points(group="console_scripts", name="adapterkit")
    assert script.load() is main


@pytest.mark.skipif(os.name == "nt", reason="pipes close otherwise there")
@pytest.mark.parametrize("arguments", [["plugins", "--json"], ["--help"]])
def test_a_reader_that_has_gone_is_no_accident(arguments):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-c", "import sys; from adapterkit.cli import main; sys.exit(main())", *arguments]
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False, timeout=60, cwd=ROOT, env=environ
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")
