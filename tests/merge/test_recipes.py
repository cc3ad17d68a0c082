"""Recipes: stages in mergekit's words, planned and run."""

import inspect
import json
import os
import shutil

import pytest

from adapterkit import Adapter, ArtifactError, Base, Blend, ConfigError, Registry, SelectionError, merge
from adapterkit.discovery import find
from adapterkit.recipes import plan_recipe, read_recipe, run_recipe
from adapterkit.testing import tiny_gpt2, tiny_llama
from tests.support import EXAMPLE_BASE, make_adapter


@pytest.fixture(scope="module")
def base():
    return Base(tiny_llama())


@pytest.fixture(scope="module")
def adapters(base):
    return {
        "cards": make_adapter(base, rank=4, seed=1),
        "tone": make_adapter(base, rank=2, seed=2, target_modules=("q_proj", "v_proj")),
        "whole": make_adapter(base, method="full", seed=3, target_modules=("q_proj",)),
        "dora": make_adapter(base, rank=2, seed=4, use_dora=True),
        "soft": make_adapter(base, method="prompt_tuning", tokens=2),
        "other": make_adapter(Base(tiny_gpt2()), rank=2),
    }


@pytest.fixture
def folder(adapters, tmp_path, monkeypatch):
    """A folder with adapters, which is not the current one."""
    monkeypatch.chdir(tmp_path)
    for name, adapter in adapters.items():
        adapter.save(tmp_path / "recipes" / "out" / name)
    return tmp_path / "recipes"


@pytest.fixture
def write(folder):
    def call(text):
        (folder / "recipe.yml").write_text(text)
        return folder / "recipe.yml"

    return call


TWO_STAGES = """
name: skills
merge_method: ties
models:
  - model: out/cards
    parameters: {weight: 0.7}
  - {model: out/tone, weight: -0.3}
parameters: {density: 5e-1, normalize: true, lambda: 2.0}
---
adapters:
  - {adapter: skills, weight: 1}
  - {adapter: out/whole, weight: 0.5}
rank: 3
"""


def test_a_recipe_is_the_merges_that_it_names(write, adapters):
    merged = run_recipe(write(TWO_STAGES))
    options = {"density": 0.5, "normalize": "weights", "scaling": 2.0}
    skills = merge([adapters["cards"], adapters["tone"]], [0.7, -0.3], "ties", **options)
    wanted = merge([skills, adapters["whole"]], [1.0, 0.5], rank=3)
    assert merged == wanted
    assert merged.manifest.lineage == {
        **wanted.manifest.lineage,
        "recipe": [
            {
                "name": "skills",
                "merge_method": "ties",
                "parameters": options,
                "seed": 0,
                "adapters": [
                    {"digest": adapters["cards"].digest, "weight": 0.7},
                    {"digest": adapters["tone"].digest, "weight": -0.3},
                ],
            },
            {
                "merge_method": "cat",
                "rank": 3,
                "seed": 0,
                "adapters": [
                    {"digest": skills.digest, "weight": 1.0, "stage": "skills"},
                    {"digest": adapters["whole"].digest, "weight": 0.5},
                ],
            },
        ],
    }


def test_the_lineage_is_kept_and_says_nothing_of_paths(write, tmp_path):
    folder = run_recipe(write(TWO_STAGES)).save(tmp_path / "merged")
    lineage = Adapter.load(folder).manifest.lineage
    assert lineage["recipe"][0]["name"] == "skills"
    assert str(tmp_path) not in json.dumps(lineage)
    assert "out/" not in json.dumps(lineage)


def test_mappings_lists_and_json_say_the_same_as_yaml(write, folder, adapters):
    stages = [
        {
            "name": "skills",
            "merge_method": "dare_ties",
            "adapters": [{"adapter": "recipes/out/cards"}, "recipes/out/tone"],
            "seed": 3,
        },
        {"merge_method": "svd", "adapters": ["skills"], "rank": 2},
    ]
    wanted = merge([adapters["cards"], adapters["tone"]], strategy="dare_ties", seed=3)
    assert run_recipe(stages[0]) == wanted
    assert run_recipe(stages) == merge(wanted, strategy="svd", rank=2)
    (folder / "recipe.json").write_text(json.dumps(stages).replace("recipes/", ""))
    assert run_recipe(folder / "recipe.json") == run_recipe(stages)
    assert run_recipe(read_recipe(stages)) == run_recipe(stages)


def test_a_blends_file_may_be_merged(folder, adapters):
    blend = Blend({adapters["cards"]: 0.5, adapters["tone"]: 2.0})
    blend.save(
        folder / "mix.json", {one: folder / "out" / name for name, one in adapters.items() if one in blend.adapters}
    )
    assert run_recipe({"adapters": ["recipes/mix.json"]}) == merge(blend)


def test_factors_are_merged_apart_where_that_is_asked_for(adapters, folder):
    stage = {"merge_method": "linear", "adapters": ["recipes/out/cards", "recipes/out/cards2"], "space": "factors"}
    other = make_adapter(Base(tiny_llama()), rank=4, seed=9)
    other.save(folder / "out" / "cards2")
    assert run_recipe(stage) == merge([adapters["cards"], other], strategy="linear", space="factors")
    assert plan_recipe(stage).stages[0].result.rank == (4, 4)


def test_a_base_is_opened_for_what_needs_one(folder, write):
    model = tiny_llama(vocab_size=8192, max_position_embeddings=128)
    model.save_pretrained(folder / "base")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(EXAMPLE_BASE / name, folder / "base" / name)
    base = Base(folder / "base")
    one, two = make_adapter(base, rank=2, seed=1), make_adapter(base, rank=2, seed=2, use_dora=True)
    one.save(folder / "out" / "one")
    two.save(folder / "out" / "two")
    stage = "merge_method: svd\nadapters: [out/one, out/two]\nrank: 6\n"
    (refused,) = plan_recipe(write(stage)).refused
    assert "depends on the base's weights" in refused
    with pytest.raises(SelectionError, match=r"line 1: .*depends on the base's weights"):
        run_recipe(write(stage))
    recipe = write(stage + "base_model: base\n")
    assert run_recipe(recipe) == merge([one, two], strategy="svd", rank=6, base=base)
    (planned,) = plan_recipe(recipe).stages
    assert planned.refused == ()
    assert planned.result.rank == (6, 6)


# -- plans ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "stage",
    [
        {"adapters": ["cards", "tone"]},
        {"adapters": ["cards", "tone"], "rank": 3},
        {"adapters": ["cards", "tone"], "merge_method": "svd"},
        {"adapters": ["cards", "tone"], "merge_method": "ties", "rank": 5},
        {"adapters": ["cards", "tone"], "merge_method": "dare_linear"},
        {"adapters": ["cards", "whole"]},
        {"adapters": ["cards", "whole"], "rank": 8},
        {"adapters": ["whole"], "merge_method": "linear"},
        {"adapters": ["soft"]},
    ],
    ids=str,
)
def test_a_plan_says_what_becomes_of_it(folder, stage):
    stage = {**stage, "adapters": [f"recipes/out/{name}" for name in stage["adapters"]]}
    (planned,) = plan_recipe(stage).stages
    assert planned.refused == ()
    merged = run_recipe(stage)
    ranks = [tensor.shape[0] for name, tensor in merged.tensors.items() if name.endswith("lora_A.weight")]
    assert planned.result.rank == ((min(ranks), max(ranks)) if ranks else None)
    assert (planned.result.method, planned.result.bytes) == (merged.method, 4 * merged.parameters)


def test_a_plan_lists_parents_and_goes_through_stages(write, adapters):
    first, last = plan_recipe(write(TWO_STAGES)).stages
    assert [(one.adapter, one.weight, one.digest, one.rank) for one in first.parents] == [
        ("out/cards", 0.7, adapters["cards"].digest, (4, 4)),
        ("out/tone", -0.3, adapters["tone"].digest, (2, 2)),
    ]
    assert first.parents[0].bytes == 4 * adapters["cards"].parameters
    assert first.result.rank == (4, 6)
    assert [(one.adapter, one.digest, one.rank) for one in last.parents] == [
        ("skills", "", (4, 6)),
        ("out/whole", adapters["whole"].digest, None),
    ]
    assert (last.result.rank, last.result.sites) == ((3, 3), 14)
    said = json.loads(json.dumps(plan_recipe(write(TWO_STAGES)).to_json()))
    assert said["stages"][0]["parameters"]["majority_sign_method"] == "total"
    assert said["stages"][1]["result"] == {
        "method": "lora",
        "rank": [3, 3],
        "sites": 14,
        "bytes": last.result.bytes,
    }


def test_a_plan_merges_nothing(write, monkeypatch):
    monkeypatch.setattr("adapterkit.recipes.running.merge", lambda *_, **__: pytest.fail("it merged"))
    assert not plan_recipe(write(TWO_STAGES)).refused


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ({"adapters": ["cards"], "merge_method": "tie"}, "did you mean 'ties'?"),
        (
            {"adapters": ["cards", "tone"], "merge_method": "ties", "parameters": {"densty": 1}},
            "did you mean 'density'?",
        ),
        ({"adapters": ["cards", "tone"], "merge_method": "ties", "parameters": {"density": 0.0}}, "above 0"),
        ({"adapters": ["cards", "tone", "whole"], "merge_method": "slerp"}, "slerp"),
        ({"adapters": ["cards", "other"]}, "was made for another base"),
        ({"adapters": ["cards", "soft"], "merge_method": "ties"}, "use them together as a Stack"),
        ({"adapters": ["cards", "tone"], "rank": 40}, "over its limit"),
        ({"adapters": ["cards", "tone"], "space": "factors", "merge_method": "linear"}, "equal ranks"),
    ],
    ids=str,
)
def test_what_is_refused_is_planned_so_too(folder, stage, said):
    stage = {**stage, "adapters": [f"recipes/out/{name}" for name in stage["adapters"]]}
    planned = plan_recipe(stage)
    assert any(said in reason for reason in planned.refused)
    with pytest.raises((ConfigError, SelectionError), match="stage 1") as caught:
        run_recipe(stage)
    assert said in str(caught.value)


def test_a_tampered_parent_is_refused_by_name(write, folder):
    weights = folder / "out" / "tone" / "adapter_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    recipe = write(TWO_STAGES)
    with pytest.raises(ArtifactError, match=r"line 2: .*tone.*was changed after it was saved"):
        run_recipe(recipe)
    first, last = plan_recipe(recipe).stages
    assert "was changed after it was saved" in first.refused[0]
    assert last.refused == ("adapters: stage 'skills' is refused",)


# -- reading --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("just words", "must be a mapping"),
        ("adapters: [", "neither YAML nor JSON"),
        ("adapters: [out/cards]\nrank: 3\nrank: 4\n", "line 3: 'rank' is said twice: in line 2 as well"),
        ("adapters: [out/cards]\nrnk: 3\n", "line 2: rnk: no such field; did you mean 'rank'?"),
        ("adapters: [out/cards]\ndtype: float16\n", "line 2: dtype: is for whole models"),
        ("slices: []\nadapters: [out/cards]\n", "line 1: slices: is for whole models"),
        ("adapters: [out/cards]\nrank: 0\n", "line 2: rank: must be a whole number from 1 on, not 0"),
        ("adapters: [out/cards]\nseed: -1\n", "line 2: seed: must be a whole number from 0 on, not -1"),
        ("adapters: [out/cards]\nmerge_method: 3\n", "line 2: merge_method: must be a text, not 3"),
        ("adapters: [out/cards]\nparameters: [density]\n", "line 2: parameters: must be a mapping of options"),
        ("merge_method: ties\n", "adapters: must be a list"),
        ("adapters: out/cards\n", "line 1: adapters: must be a list"),
        ("adapters: [out/cards]\nmodels: [out/tone]\n", "line 2: models: adapters are given as well"),
        ("adapters:\n- weight: 3\n", "line 2: adapters: {'weight': 3} names no adapter"),
        ("adapters:\n- adapter: out/cards\n  weigth: 3\n", "line 3: weigth: no such field; did you mean 'weight'?"),
        ("adapters:\n- adapter: out/cards\n  weight: much\n", "line 3: weight: must be a finite number, not 'much'"),
        ("adapters:\n- adapter: out/cards\n  weight: [0, 1]\n", "line 3: weight: must be a finite number"),
        (
            "adapters:\n- adapter: out/cards\n  parameters: {density: 0.5}\n",
            "line 3: parameters: density: only weight is an adapter's own",
        ),
        ("adapters:\n- {adapter: out/cards, weight: 1}\n- out/tone\n", "line 1: adapters: some have a weight"),
        ("adapters: [out/card]\n", "line 1: there is no adapter at"),
        ("adapters: [out/cards]\n---\nadapters: [out/tone]\n", "line 1: must have a name"),
        ("name: a\nadapters: [out/cards]\n---\nadapters: [out/tone]\n", "line 1: nothing is made of its result"),
        ("name: a\nadapters: [a]\n", "'a' is made by a later stage"),
        ("name: a\nadapters: [b]\n---\nname: b\nadapters: [a]\n", "line 1: 'b' is made by a later stage"),
        (
            "name: a\nadapters: [out/cards]\n---\nname: a\nadapters: [a]\n",
            "line 1: name: another stage is called 'a' too",
        ),
        ("adapters: [skils]\nname: x\n", "there is no adapter at"),
        ("!!python/object/apply:os.system ['true']", "line 1: tags such as"),
        (
            "adapters: [out/cards]\nrank: 2001-99-99\n",
            "line 2: rank: must be a whole number from 1 on, not '2001-99-99'",
        ),
        ('adapters: [out/cards]\nrank: !!int ""\n', "line 2: tags such as 'tag:yaml.org,2002:int' are not read"),
        ("adapters: [out/cards]\nrank: !!float x\n", "line 2: tags such as"),
        ("adapters: [out/cards]\nrank: !!bool maybe\n", "line 2: tags such as"),
        ("adapters: [out/cards]\nname: !!str 3\n", "line 2: tags such as"),
        ("adapters: [out/cards]\n? [a, b]\n: 1\n", "line 2: ['a', 'b'] is no name"),
        ("adapters: [out/cards]\n1: 1\n", "line 2: 1 is no name"),
        ("adapters: [out/cards]\nname: " + "[" * 3000 + "]" * 3000, "line 2: is nested too deeply"),
        ("adapters: [out/cards]\nname: " + "{a: " * 3000 + "}" * 3000, "line 2: is nested too deeply"),
        ("adapters: [out/cards]\nrank: " + "9" * 5000, "line 2: the number 9999999999"),
        ("adapters: [out/cards]\nrank: " + "9" * 300, "line 2: rank: must be a whole number from 1 on, not 9999999999"),
        ("adapters: [out/cards]\nseed: " + "9" * 300, "line 2: seed: must be a whole number from 0 on, not 9999999999"),
        ("adapters:\n- {adapter: out/cards, weight: " + "9" * 400 + "}", "line 2: the number 9999999999"),
        ("adapters:\n- {adapter: out/cards, weight: 1:30}", "line 2: weight: must be a finite number, not '1:30'"),
        ("adapters:\n- {adapter: out/cards, weight: yes}", "line 2: weight: must be a finite number, not 'yes'"),
        ("adapters: [out/cards]\nparameters: {scaling: " + "9" * 400 + "}", "line 2: the number 9999999999"),
        ("adapters: [" + "x" * 5000 + "]\n", "line 1: there is no adapter at"),
        ('adapters: ["a\\0b"]\n', "line 1: there is no adapter at"),
        ('adapters: ["\\ud800"]\n', "line 1: '\\ud800' holds half a character"),
        ('adapters: ["\\UFFFFFFFF"]\n', "neither YAML nor JSON"),
        ("adapters: [out/cards]\nname: a\0b\n", "line 2: is neither YAML nor JSON: the character"),
        ("a: &a [1]\nadapters: [out/cards]\nname: *a\n", "line 3: *a: aliases are not read; write it out"),
        ("adapters: &q [*q]\n", "line 1: *q: aliases are not read"),
        ("adapters: [out/cards]\n<<: {rank: 3}\n", "line 2: <<: no such field"),
        ("#" * 2**20 + "\nadapters: [out/cards]\n", "at most 1,048,576 are read"),
    ],
    ids=lambda text: text[:60],
)
def test_a_recipe_that_does_not_fit_is_refused_with_its_line(write, text, said):
    with pytest.raises(ConfigError) as caught:
        plan_recipe(write(text))
    assert said in str(caught.value)
    with pytest.raises(ConfigError):
        run_recipe(write(text))


def test_all_problems_are_said_together(write):
    with pytest.raises(ConfigError) as caught:
        read_recipe(write("adapters: [out/cards]\nrnk: 3\nseed: x\ndtype: float16\n"))
    assert len(caught.value.problems) == 3


def test_words_are_read_as_in_json(write):
    numbers = "3, -3, +3, 010, 0.5, .5, 5., 3e-3, -1E+2"
    words = f"[null, ~, true, True, false, {numbers}, yes, off, 0x10, 1_000, 12:30, .nan, '3', \"true\"]"
    recipe = read_recipe(write(f"adapters: [out/cards]\nparameters: {{words: {words}}}\n"))
    texts = ["yes", "off", "0x10", "1_000", "12:30", ".nan", "3", "true"]
    read = [None, None, True, True, False, 3, -3, 3, 10, 0.5, 0.5, 5.0, 0.003, -100.0, *texts]
    assert list(map(repr, recipe.stages[0].parameters["words"])) == list(map(repr, read))
    assert (
        read_recipe(write('{"adapters": ["out/cards"], "name": "\\ud83d\\ude00"}')).stages[0].name
        == "\N{GRINNING FACE}"
    )


def test_a_bomb_is_refused_at_once(write):
    laughs = "x0: &x0 [l, l]\n" + "".join(f"x{n}: &x{n} [{','.join([f'*x{n - 1}'] * 10)}]\n" for n in range(1, 30))
    merged = "x0: &x0 {a: 1}\n" + "".join(
        f"x{n}: &x{n} {{<<: [{','.join([f'*x{n - 1}'] * 10)}]}}\n" for n in range(1, 30)
    )
    for text in (laughs, merged):
        with pytest.raises(ConfigError, match=r"line 2: \*x0: aliases are not read"):
            read_recipe(write(text))


def test_a_value_in_an_error_is_short(folder):
    wide: list = ["l"] * 10
    for _ in range(30):
        wide = [wide] * 10
    for value in (wide, 10**5000, [10**5000]):
        with pytest.raises(ConfigError, match="rank: must be a whole number from 1 on") as caught:
            read_recipe({"adapters": ["recipes/out/cards"], "rank": value})
        assert len(str(caught.value)) < 300


@pytest.mark.parametrize("what", ["a folder", "a pipe", "nothing", "no path"])
def test_a_recipe_is_a_file(folder, what):
    if what == "a pipe":
        os.mkfifo(folder / "a pipe")
    (folder / "a folder").mkdir()
    for read in (read_recipe, run_recipe):
        with pytest.raises(ConfigError, match="cannot be read"):
            read(folder / what.replace("no path", "a\0b"))


def test_what_merge_itself_takes_is_no_option(write):
    words = [name for name in inspect.signature(merge).parameters if name != "options"]
    with pytest.raises(ConfigError) as caught:
        read_recipe(write("adapters: [out/cards]\nparameters:\n" + "".join(f"  {word}: 3\n" for word in words)))
    for line, (word, problem) in enumerate(zip(words, caught.value.problems, strict=True), 3):
        assert f"line {line}: {word}: is no option of a strategy: " in problem


def test_adapters_that_are_not_there_are_said_together_with_the_rest(write):
    recipe = write("name: a\nrnk: 3\nadapters: [out/card]\n---\nadapters: [a, out/ton]\n")
    for read in (plan_recipe, run_recipe):
        with pytest.raises(ConfigError) as caught:
            read(recipe)
        said = ("line 2: rnk: no such field", "line 1: there is no adapter at", "line 5: there is no adapter at")
        for problem, wanted in zip(caught.value.problems, said, strict=True):
            assert wanted in problem


def test_strategies_of_a_registry_are_those_of_its_plugins(folder):
    registry = Registry([one for one in find() if one.name != "cat"])
    stage = {"adapters": ["recipes/out/cards", "recipes/out/tone"]}
    with pytest.raises(ConfigError, match="no merge strategy 'cat'"):
        run_recipe(stage, registry=registry)
    assert "no merge strategy 'cat'" in plan_recipe(stage, registry=registry).refused[0]
