"""Where an adapter comes from: as far back as its store knows, and honest about the rest."""

import json

import attrs
import pytest

from adapterkit import Adapter, Base, extract, merge, run_recipe, trace
from adapterkit.artifact.manifest import BaseReference
from adapterkit.cli import main
from adapterkit.store import Store
from adapterkit.testing import tiny_llama
from tests.support import make_adapter

TRAINING = {
    "objective": "sft",
    "options": {"max_steps": 3, "seed": 7, "learning_rate": 0.01, "weight_decay": 0.5},
    "steps": 3,
    "data": {"digest": "e" * 64, "files": ["train.csv"], "rows": 12},
}


@pytest.fixture(scope="module")
def base():
    return Base(tiny_llama())


def trained(base, seed, **options):
    adapter = make_adapter(base, rank=2, seed=seed, **options)
    manifest = attrs.evolve(adapter.manifest, training=TRAINING, versions={"torch": "2.13.0"})
    return attrs.evolve(adapter, manifest=manifest)


@pytest.fixture(scope="module")
def pair(base):
    return trained(base, 1), trained(base, 2)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def test_a_trained_one_names_base_data_options_and_versions(pair):
    found = trace(pair[0])
    assert (found.digest, found.method, found.made, found.parents) == (pair[0].digest, "lora", "training", ())
    assert str(found).splitlines()[1:] == [
        f"├── base: LlamaForCausalLM, fingerprint {pair[0].manifest.base.fingerprint[:12]}",
        "├── trained on: train.csv: 12 rows, digest eeeeeeeeeeee",
        "├── trained: 3 steps, learning_rate=0.01, seed=7, weight_decay=0.5",
        "└── made with: adapterkit test, torch 2.13.0",
    ]
    said = found.to_json()
    assert said["data"] == {"data": TRAINING["data"]}
    assert said["training"]["options"]["seed"] == 7
    assert "parents" not in said


def test_parents_are_followed_through_the_store(pair, base, store):
    third = trained(base, 3)
    inner = merge(pair, [0.5, -1.0], "svd", rank=2)
    outer = merge([inner, third], [1.0, 2.0])
    store.add(pair[0], "one")
    store.add(inner, "inner")
    found = trace(outer, store=store)
    first, second = found.parents
    assert (first.reference, first.weight, first.made) == ("inner@1", 1.0, "merge")
    assert [one.reference for one in first.parents] == ["one@1", ""]
    assert [one.weight for one in first.parents] == [0.5, -1.0]
    assert first.parents[0].manifest.training == TRAINING
    assert (second.digest, second.manifest, second.made) == (third.digest, None, "unknown")
    text = str(found)
    assert "1 × lora" in text
    assert "│   ├── 0.5 × lora" in text
    assert text.count("nothing more is known of it here") == 2
    assert json.loads(json.dumps(found.to_json()))["parents"][0]["parents"][0]["reference"] == "one@1"


def test_without_a_store_parents_are_named(pair):
    found = trace(merge(pair))
    assert [one.digest for one in found.parents] == [one.digest for one in pair]
    assert all(one.manifest is None for one in found.parents)


def test_a_shared_parent_is_told_once(pair, store):
    for number, one in enumerate(pair):
        store.add(one, f"p{number}")
    ties, svd = merge(pair, strategy="ties", density=0.5), merge(pair, strategy="svd", rank=2)
    top = merge([ties, svd], [1.0, 1.0])
    deep = merge([top, ties], [1.0, 0.5])
    for name, one in (("ties", ties), ("svd", svd), ("top", top)):
        store.add(one, name)
    found = trace(deep, store=store)
    first, again = found.parents
    assert not first.parents[0].repeated
    assert again.repeated
    assert again.parents == ()
    assert str(found).count("(as above)") == 3, "and both parents of the second merge"
    assert str(found).count("trained on: train.csv") == 2


def test_what_a_recipe_made_on_its_way_is_known_from_the_recipe(pair, base, tmp_path):
    third = trained(base, 3)
    for name, one in zip("abc", (*pair, third), strict=True):
        one.save(tmp_path / name)
    stages = [
        {
            "name": "both",
            "merge_method": "ties",
            "parameters": {"density": 0.5},
            "adapters": [str(tmp_path / "a"), str(tmp_path / "b")],
        },
        {
            "merge_method": "cat",
            "adapters": [{"adapter": "both", "weight": 0.5}, {"adapter": str(tmp_path / "c"), "weight": 1}],
        },
    ]
    found = trace(run_recipe(stages))
    inner, direct = found.parents
    assert (inner.stage, inner.weight, inner.made) == ("both", 0.5, "merge")
    assert [one.digest for one in inner.parents] == [one.digest for one in pair]
    assert "· both" in str(found)
    assert "merged: ties" in str(found)
    assert (direct.digest, direct.stage) == (third.digest, "")


def test_an_extracted_one_leads_to_what_was_tuned(tmp_path):
    model = tiny_llama()
    folder = tmp_path / "base"
    model.save_pretrained(folder)
    base = Base(model)
    full = make_adapter(base, method="full", scale=0.01)
    found = trace(extract(folder, full, rank=2, ignore_rest=True))
    assert found.made == "extract"
    assert [(one.digest, one.method) for one in found.parents] == [(full.digest, "full")]
    assert "extract: rank=2 seed=0 error=" in str(found)


def test_a_manifest_that_names_itself_ends(pair, store):
    adapter = pair[0]
    for parents in ([{"digest": adapter.digest, "weight": 1}], "none", [3, {"digest": "x"}], [{}]):
        forged = attrs.evolve(
            adapter, manifest=attrs.evolve(adapter.manifest, lineage={"kind": "merge", "parents": parents})
        )
        store.add(forged, "forged")
        assert str(trace(forged, store=store)).count("lora") <= 2


def named(number):
    return f"{number:064x}"


def stage(number, made_of):
    return {"name": f"s{number}", "merge_method": "cat", "adapters": made_of}


ODD = [
    [{"name": "x", "adapters": 5}],
    [{"name": "x", "adapters": None}],
    [{"name": "x", "adapters": [{"stage": ["x"], "digest": named(0)}]}],
    [{"name": "x", "adapters": [{"stage": "x", "digest": ["x"]}]}],
    [{"name": ["x"], "adapters": [3, None, [], {}]}],
    [stage(0, [{"stage": "s0", "digest": named(0)}])],
    ["x", 3, None],
    "x",
]


@pytest.mark.parametrize("recipe", ODD, ids=lambda one: str(one)[:50])
def test_a_recipe_that_makes_no_sense_tells_nothing(pair, recipe):
    lineage = {"kind": "merge", "parents": [{"digest": named(0), "weight": 1}], "recipe": recipe}
    forged = attrs.evolve(pair[0], manifest=attrs.evolve(pair[0].manifest, lineage=lineage))
    found = trace(forged)
    assert [one.digest for one in found.parents] == [named(0)]
    assert json.dumps(found.to_json())
    assert str(found)


def test_a_recipe_of_endless_stages_is_followed_so_far_and_says_so(pair):
    stages = [stage(number, [{"stage": f"s{number + 1}", "digest": named(number + 1)}]) for number in range(1500)]
    stages.append({"name": "top", "adapters": [{"stage": "s0", "digest": named(0)}]})
    lineage = {"kind": "merge", "parents": [{"digest": named(0)}], "recipe": stages}
    found = trace(attrs.evolve(pair[0], manifest=attrs.evolve(pair[0].manifest, lineage=lineage)))
    text, depth, said = str(found), 0, found.to_json()
    while said.get("parents"):
        depth, said = depth + 1, said["parents"][0]
    assert (depth, said["cut"]) == (64, True)
    assert text.count("made of others, which are not followed so far") == 1


def test_a_strangers_text_does_not_steer_the_terminal(pair):
    manifest = attrs.evolve(
        pair[0].manifest,
        base=BaseReference(name="\x1b[31m[bold]x[/bold]\n"),
        evaluation={"results": [{"name": "\x1b]0;x\x07", "scores": {"[link=x]a": 1.0}}]},
    )
    text = str(trace(Adapter("lora", pair[0].config, pair[0].tensors, manifest)))
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[bold]x[/bold]" in text
    assert "[link=x]a 1" in text


def test_the_command_takes_folders_and_references(pair, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ADAPTERKIT_STORE", str(tmp_path / "store"))
    merged = merge(pair)
    Store().add(pair[0], "cards")
    folder = merged.save(tmp_path / "merged")
    assert main(["lineage", str(folder)]) == 0
    assert "1 × lora" in capsys.readouterr().out
    assert main(["lineage", str(folder), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [one.get("reference") for one in said["parents"]] == ["cards@1", None]
    assert main(["lineage", "cards@1"]) == 0
    assert "· cards@1" in capsys.readouterr().out
    assert main(["lineage", str(tmp_path / "none")]) != 0
