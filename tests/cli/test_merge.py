"""`adapterkit merge` and `adapterkit blend`."""

import json
import shutil
import textwrap

import pytest

from adapterkit import Adapter, Base, Blend, merge
from adapterkit.cli import main
from adapterkit.testing import tiny_llama
from tests.support import EXAMPLE_BASE, make_adapter

ROWS = [{"prompt": f"number {n}", "completion": ("odd", "even")[n % 2]} for n in range(8)]
PLUGIN = """
    from collections.abc import Sequence

    from torch import Tensor

    from adapterkit import MergeStrategy, hookimpl


    def first(deltas: Sequence[Tensor], weights: Sequence[float], *, times: float = 1.0, negate: bool = False) -> Tensor:
        \"\"\"The first one.

        Args:
            deltas: The changes.
            times: What it is multiplied by,
                which may be less than 0.
        \"\"\"
        return deltas[0] * times * (-1 if negate else 1)


    @hookimpl
    def adapterkit_merge_strategies():
        yield MergeStrategy(name="first", merge=first)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("merging")
    tiny_llama(vocab_size=8192, max_position_embeddings=128).save_pretrained(folder / "base")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(EXAMPLE_BASE / name, folder / "base" / name)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (folder / "first.py").write_text(textwrap.dedent(PLUGIN))
    (folder / "recipe.yml").write_text(
        "merge_method: svd\nadapters:\n- {adapter: cards, weight: 0.7}\n- tone\nrank: 2\n"
    )
    (folder / "good.yml").write_text("merge_method: svd\nadapters: [cards, tone]\nrank: 2\n")
    return folder


@pytest.fixture(scope="module")
def base(folder):
    return Base(folder / "base")


@pytest.fixture(scope="module")
def adapters(base, folder):
    made = {
        "cards": make_adapter(base, rank=2, seed=1),
        "tone": make_adapter(base, rank=3, seed=2),
        "dora": make_adapter(base, rank=2, seed=3, use_dora=True),
    }
    for name, adapter in made.items():
        adapter.save(folder / name)
    return made


@pytest.fixture
def run(folder, adapters, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "120")

    def call(*arguments):
        code = main([str(one) for one in arguments])
        return code, *capsys.readouterr()

    return call


def test_adapters_are_merged_as_the_options_say(run, adapters, tmp_path):
    how = ("--weights", "-0.7,0.3", "--strategy", "ties", "--density", "0.4", "--rank", 4)
    code, out, err = run("merge", "cards", "tone", *how, "--output", tmp_path / "m")
    assert (code, out) == (0, f"{tmp_path / 'm'}\n")
    wanted = merge([adapters["cards"], adapters["tone"]], [-0.7, 0.3], "ties", density=0.4, rank=4)
    assert Adapter.load(tmp_path / "m") == wanted
    lost = wanted.manifest.lineage["lost"]["overall"]
    assert err == f"ties of 2 adapters; {lost:.1%} of the change was cut off; digest {wanted.digest}\n"


def test_the_default_is_exact_and_says_how_it_was_made_as_json(run, adapters, tmp_path):
    code, out, _ = run("merge", "cards", "tone", "--output", tmp_path / "m", "--json")
    assert code == 0
    said = json.loads(out)
    wanted = merge([adapters["cards"], adapters["tone"]])
    assert (said["adapter"], said["digest"]) == (str(tmp_path / "m"), wanted.digest)
    assert said["lineage"]["strategy"] == "cat"
    assert said["lineage"] == Adapter.load(tmp_path / "m").manifest.lineage


@pytest.mark.parametrize("words", [["OUT"], ["--output", "OUT"]])
def test_a_recipe_is_merged(run, adapters, tmp_path, words):
    words = [str(tmp_path / "m") if word == "OUT" else word for word in words]
    assert run("merge", "good.yml", *words)[0] == 0
    assert Adapter.load(tmp_path / "m") == merge([adapters["cards"], adapters["tone"]], strategy="svd", rank=2)


def test_a_dry_run_shows_the_plan_and_writes_nothing(run, adapters, tmp_path):
    code, out, err = run("merge", "good.yml", tmp_path / "m", "--dry-run")
    assert (code, err) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["1.", "svd", "rank=2"]
    assert lines[1][:7] == ["1", "×", "cards", "lora", adapters["cards"].digest[:12], "rank", "2"]
    assert lines[3][:10] == ["=", "the", "adapter", "lora", "14", "sites", "at", "most", "rank", "2"]
    assert not (tmp_path / "m").exists()
    said = json.loads(run("merge", "good.yml", "--dry-run", "--json")[1])
    assert said["stages"][0]["result"]["rank"] == [2, 2]


def test_a_dry_run_says_what_would_be_refused(run):
    code, out, err = run("merge", "cards", "dora", "--dry-run")
    assert code == 2
    assert "=  refused" in " ".join(out.split("   "))
    assert "give --base, or base_model in a recipe" in err
    code, out, err = run("merge", "cards", "dora", "--dry-run", "--base", "base")
    assert (code, err) == (0, "")


def test_a_base_is_given_where_one_is_needed(run, base, adapters, tmp_path):
    assert run("merge", "cards", "dora", "--output", tmp_path / "m")[0] == 2
    assert not (tmp_path / "m").exists()
    options = ("--strategy", "svd", "--rank", 4, "--base", "base", "--output", tmp_path / "m")
    assert run("merge", "cards", "dora", *options)[0] == 0
    wanted = merge([adapters["cards"], adapters["dora"]], strategy="svd", rank=4, base=base)
    assert Adapter.load(tmp_path / "m") == wanted


def test_the_options_of_a_plugins_strategy_are_options_here(run, adapters, tmp_path):
    options = ("--plugin", "first.py", "--strategy", "first", "--times", "-2.0", "--negate", "--output", tmp_path / "m")
    assert run("merge", "cards", "tone", *options)[0] == 0
    lineage = Adapter.load(tmp_path / "m").manifest.lineage
    assert lineage["options"] == {"times": -2.0, "negate": True}
    shown = run("merge", "--plugin", "first.py", "--strategy", "first", "--help")[1]
    assert "What it is multiplied by, which may be less than 0. [default: 1.0]" in " ".join(
        shown.replace("│", " ").split()
    )


def test_every_strategy_takes_all_of_its_options(run, tmp_path):
    from adapterkit.merging.strategy import options_of
    from adapterkit.registry import default_registry

    for record in default_registry().merge_strategies():
        shown = run("merge", "--strategy", record.name, "--help")[1]
        for name in options_of(record).__annotations__:
            assert f"--{name.replace('_', '-')}" in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give RECIPE.yml OUTPUT, or the adapters to merge"),
        (["cards", "tone"], "--output: is required"),
        (["cards", "ton", "--output", "OUT"], "no adapter 'ton'; did you mean 'tone'?"),
        (["cards*0.7", "tone", "--weights", "1,2", "--output", "OUT"], "have weights behind a star already"),
        (["cards*half", "tone", "--output", "OUT"], "'half' is no weight"),
        (["cards", "tone", "--weights", "0,0", "--output", "OUT"], "error: these adapters cannot be merged so"),
        (["cards", "tone", "--weights", "1", "--output", "OUT"], "--weights: 1 for 2 adapters"),
        (["cards", "tone", "--weights", "1,x", "--output", "OUT"], "--weights: '1,x' is not like 0.7,-0.3"),
        (["cards", "tone", "--weights", "1,nan", "--output", "OUT"], "is no finite number"),
        (["cards", "tone", "--strategy", "tie", "--output", "OUT"], "did you mean 'ties'?"),
        (["cards", "tone", "--strategy", "ties", "--density", "0", "--output", "OUT"], "- --density: must be"),
        (["cards", "tone", "--rank", "99", "--output", "OUT"], "--rank 99 is over its limit"),
        (["cards", "cards", "--output", "OUT"], "twice"),
        (["good.yml", "OUT", "--rank", "3"], "--rank: the recipe says it"),
        (["good.yml", "OUT", "--output", "OUT"], "give RECIPE.yml OUTPUT, and nothing else"),
        (["good.yml", "cards", "OUT"], "give RECIPE.yml OUTPUT, and nothing else"),
        (["none.yml", "OUT"], "cannot be read"),
        (["recipe.yml", "OUT"], "some have a weight and some have none"),
    ],
)
def test_a_misuse_is_said_and_nothing_is_written(run, tmp_path, arguments, said):
    code, out, err = run("merge", *(str(tmp_path / "m") if word == "OUT" else word for word in arguments))
    assert (code, out) == (2, "")
    assert said in err
    assert not (tmp_path / "m").exists()


def test_weights_may_stand_behind_a_star(run, adapters, tmp_path):
    assert run("merge", "cards*0.7", "tone*-0.3", "--output", tmp_path / "apart")[0] == 0
    assert run("merge", "cards*0.7+tone*-0.3", "--output", tmp_path / "together")[0] == 0
    wanted = merge([adapters["cards"], adapters["tone"]], [0.7, -0.3])
    assert Adapter.load(tmp_path / "apart") == Adapter.load(tmp_path / "together") == wanted


def test_a_parent_is_not_replaced(run, adapters, folder):
    code, out, err = run("merge", "cards", "tone", "--output", folder / "cards")
    assert (code, out) == (2, "")
    assert "is the input 'cards': give another folder" in err
    assert run("merge", "good.yml", folder / "tone")[0] == 2
    blend = Blend({adapters["cards"]: 0.5, adapters["tone"]: 0.5})
    blend.save(folder / "mix.json", {one: folder / name for name, one in adapters.items() if one in blend.adapters})
    code, out, err = run("merge", "mix.json", "--output", folder / "tone")
    assert (code, out) == (2, "")
    assert "is the input" in err
    assert [Adapter.load(folder / name) for name in ("cards", "tone")] == [adapters["cards"], adapters["tone"]]


def test_a_folder_that_holds_something_else_is_left_alone(run, folder):
    code, _, err = run("merge", "cards", "tone", "--output", "base")
    assert code == 2
    assert "'base': it holds something that is no adapter" in err
    assert (folder / "base" / "config.json").is_file()


# -- blend ----------------------------------------------------------------------------------------------------------------


def test_weights_are_learned_and_the_blend_is_used(run, base, adapters, tmp_path):
    options = (
        "--adapter",
        "cards",
        "--adapter",
        "short=tone",
        "--steps",
        3,
        "--seed",
        1,
        "--output",
        tmp_path / "mix.json",
    )
    code, out, err = run("blend", "base", "rows.jsonl", *options)
    assert (code, out) == (0, f"{tmp_path / 'mix.json'}\n")
    found = base.learn_blend({"cards": adapters["cards"], "short": adapters["tone"]}, ROWS, steps=3, seed=1)
    assert Blend.load(tmp_path / "mix.json") == found.blend
    lines = [line.split() for line in err.splitlines()]
    assert lines[0] == ["loss", "weight"]
    assert lines[2] == ["cards", f"{found.losses['cards']:.4f}", f"{found.weights['cards']:g}"]
    (rows,) = [number for number, line in enumerate(lines) if line[:3] == ["weights", "of", "6"]]
    best = min(found.losses, key=found.losses.get)
    assert best != "learned", "random adapters help nobody"
    assert " ".join(lines[rows + 1]).startswith(f"the lowest loss is that of {best}: ")
    said = json.loads(run("blend", "base", "rows.jsonl", *options, "--json")[1])
    assert said == {"blend": str(tmp_path / "mix.json"), **found.to_json()}
    code, out, _ = run("evaluate", "base", "rows.jsonl", "--adapter", tmp_path / "mix.json", "--no-compare", "--json")
    assert json.loads(out)["scores"]["loss"] == base.evaluate(ROWS, adapter=found.blend, compare=False)["loss"]
    assert run("merge", tmp_path / "mix.json", "--output", tmp_path / "m")[0] == 0
    assert Adapter.load(tmp_path / "m") == merge(found.blend)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--adapter", "carts"], "no adapter 'carts'; did you mean 'cards'?"),
        (["--adapter", "cards*2"], "is no folder"),
        (["--adapter", "a=cards", "--adapter", "a=tone"], "two adapters are called 'a'"),
        (["--adapter", "cards", "--adapter", "b=cards"], "twice"),
        (["--adapter", "cards", "--steps", "0"], "steps: must be >= 1"),
        (["--adapter", "cards", "--eval-data", "none.jsonl"], "no file 'none.jsonl'"),
        (["--adapter", "base=cards"], "no adapter can be called 'base' here"),
    ],
)
def test_a_misuse_of_blend_is_said(run, tmp_path, arguments, said):
    code, out, err = run("blend", "base", "rows.jsonl", *arguments, "--output", tmp_path / "mix.json")
    assert (code, out) == (2, "")
    assert said in err
    assert not (tmp_path / "mix.json").exists()


def test_a_blend_is_no_folder(run, tmp_path):
    code, _, err = run("blend", "base", "rows.jsonl", "--adapter", "cards", "--output", tmp_path)
    assert code == 2
    assert "is a folder; name a file in it" in err
