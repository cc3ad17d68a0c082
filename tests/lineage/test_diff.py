"""What differs between two adapters: said, held and done; the figures are those of whole matrices."""

import json

import attrs
import pytest

from adapterkit import Adapter, Base, SelectionError, Stack, diff
from adapterkit.cli import main
from adapterkit.registry import default_registry
from adapterkit.resident import effects_of
from adapterkit.testing import tiny_gpt2, tiny_llama
from tests.support import make_adapter


@pytest.fixture(scope="module")
def base():
    return Base(tiny_llama())


@pytest.fixture(scope="module")
def first(base):
    return make_adapter(base, rank=4, seed=1)


@pytest.fixture(scope="module")
def second(base):
    return make_adapter(base, rank=2, seed=2, target_modules=["q_proj", "v_proj"], alpha=3.0)


def deltas(adapter):
    return {site: one.delta().double() for site, (one,) in effects_of(default_registry(), adapter).items()}


def test_an_adapter_is_the_same_as_itself(first):
    found = diff(first, first)
    assert found.is_same
    assert found.parts == {}
    assert found.layers == found.only_first == found.only_second == ()
    assert found.same == len(deltas(first))
    assert (found.overall.distance, found.overall.cosine) == (0.0, pytest.approx(1.0))


def test_layers_are_compared_by_what_they_do(first, second):
    found = diff(first, second)
    mine, theirs = deltas(first), deltas(second)
    assert {one.name for one in found.layers} == mine.keys() & theirs.keys()
    assert set(found.only_first) == mine.keys() - theirs.keys()
    assert found.only_second == ()
    for one in found.layers:
        a, b = mine[one.name], theirs[one.name]
        assert (one.of, one.tensors) == ("effect", None), "ranks differ, and what they do is compared all the same"
        assert one.first == pytest.approx(float(a.norm()), rel=1e-6)
        assert one.distance == pytest.approx(float((a - b).norm()), rel=1e-6)
        assert one.relative == pytest.approx(float((a - b).norm() / a.norm()), rel=1e-6)
        assert one.cosine == pytest.approx(float((a * b).sum() / a.norm() / b.norm()), abs=1e-6)
    assert [one.distance for one in found.layers] == sorted((one.distance for one in found.layers), reverse=True)
    total = sum(float((mine[one.name] - theirs[one.name]).norm()) ** 2 for one in found.layers) ** 0.5
    assert found.overall.distance == pytest.approx(total, rel=1e-6)


def test_no_matrix_of_a_layers_size_is_made(first, second, monkeypatch):
    monkeypatch.setattr("adapterkit.effects.LowRank.delta", lambda _: pytest.fail("a whole matrix was made"))
    assert diff(first, second).layers


def test_other_factors_of_the_same_update_do_the_same(first):
    turned = {}
    for name, tensor in first.tensors.items():
        turned[name] = tensor * (2.0 if "lora_A" in name else 0.5)
    found = diff(first, Adapter(first.method, first.config, turned, first.manifest))
    assert not found.is_same
    assert (found.layers, found.same) == ((), len(deltas(first)))
    assert found.overall.distance == 0.0


def test_a_method_that_needs_the_base_is_compared_by_its_tensors(base):
    one, other = (make_adapter(base, rank=2, seed=seed, use_dora=True) for seed in (1, 2))
    found = diff(one, other)
    assert {one.of for one in found.layers} == {"tensors"}
    layer = found.layers[0]
    a, b = one.tensors[layer.name].double(), other.tensors[layer.name].double()
    assert layer.relative == layer.tensors == pytest.approx(float((a - b).norm() / a.norm()), rel=1e-6)


def test_soft_prompts_are_compared_by_their_tensors_and_kinds_are_not_mixed_up(base, first):
    one, other = (make_adapter(base, method="prompt_tuning", tokens=4, seed=seed) for seed in (1, 2))
    (layer,) = diff(one, other).layers
    assert layer.of == "tensors"
    longer = diff(one, make_adapter(base, method="prompt_tuning", tokens=5))
    assert (longer.layers, len(longer.unlike)) == ((), 1)
    mixed = diff(first, one)
    assert (mixed.layers, len(mixed.only_second)) == ((), 1)
    assert mixed.config[0] == attrs.evolve(mixed.config[0], name="method", first="lora", second="prompt_tuning")


def test_whole_changes_and_factors_are_compared(base, first):
    full = make_adapter(base, method="full", seed=3, scale=0.01)
    found = diff(first, full)
    mine = deltas(first)
    whole = {name: one.delta for name, (one, *_) in effects_of(default_registry(), full).items() if name in mine}
    layer = found.layers[0]
    wanted = float((mine[layer.name] - whole[layer.name].double()).norm())
    assert layer.distance == pytest.approx(wanted, rel=1e-5)
    back = {one.name: one for one in diff(full, first).layers}[layer.name]
    assert (back.first, back.second, back.distance) == pytest.approx((layer.second, layer.first, wanted), rel=1e-5)


def test_shapes_of_another_base_are_told(first):
    other = make_adapter(Base(tiny_llama(hidden_size=64)), rank=4)
    found = diff(first, other)
    assert found.layers == ()
    assert set(found.unlike) == deltas(first).keys()
    assert {one.name for one in found.base} == {"fingerprint"}
    assert len(diff(first, make_adapter(Base(tiny_gpt2()), rank=4)).only_second) > 0


def test_what_is_said_of_them_is_compared_option_by_option(first):
    manifest = attrs.evolve(
        first.manifest,
        training={"options": {"seed": 1}, "steps": 3, "data": {"rows": 5, "digest": "a"}},
        evaluation={
            "results": [{"name": "test.csv", "scores": {"accuracy": 0.5}}],
            "forgetting": {"name": "general text", "loss": 3.0, "base": 2.0},
        },
        versions={"torch": "2.12"},
    )
    other = attrs.evolve(
        manifest,
        training={"options": {"seed": 2}, "steps": 3, "data": {"rows": 6, "digest": "a"}},
        evaluation={"results": [{"name": "test.csv", "scores": {"accuracy": 0.75}}]},
        versions={"torch": "2.13"},
        lineage={"kind": "merge", "parents": [{"digest": "x", "weight": 0.5}]},
    )
    found = diff(attrs.evolve(first, manifest=manifest), attrs.evolve(first, manifest=other))
    assert found.is_same, "what is said beside an adapter is no part of it"
    parts = {part: {one.name: (one.first, one.second) for one in changes} for part, changes in found.parts.items()}
    assert parts == {
        "data": {"data.rows": (5, 6)},
        "training": {"options.seed": (1, 2)},
        "lineage": {"kind": (None, "merge"), "parents.1.digest": (None, "x"), "parents.1.weight": (None, 0.5)},
        "scores": {"test.csv: accuracy": (0.5, 0.75), "general text: loss": (3.0, None)},
        "versions": {"torch": ("2.12", "2.13")},
    }


def test_several_at_once_are_refused(first, second, tmp_path):
    blend = Stack(first, second).save(
        tmp_path / "both.json", {first: first.save(tmp_path / "a"), second: tmp_path / "b"}
    )
    second.save(tmp_path / "b")
    with pytest.raises(SelectionError, match="is several adapters at once"):
        diff(blend, first)


def test_the_command_is_short_unless_all_is_asked_for(first, second, base, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    many = make_adapter(base, rank=4, seed=5)
    for name, one in (("a", first), ("b", second), ("c", many)):
        one.save(name)
    assert main(["diff", "a", "c"]) == 0
    out = capsys.readouterr().out
    assert f"digest  {first.digest[:12]}  {many.digest[:12]}" in " ".join(out.split(" ")).replace("   ", "  ")
    assert f"0 of {len(deltas(first))} layers in both are the same; what they do differs by " in out
    shown = [line for line in out.splitlines() if line.startswith("model.layers")]
    assert len(shown) == min(10, len(deltas(first)))
    assert main(["diff", "a", "c", "--all"]) == 0
    assert len([line for line in capsys.readouterr().out.splitlines() if line.startswith("model.layers")]) == len(
        deltas(first)
    )
    assert main(["diff", "a", "b"]) == 0
    out = capsys.readouterr().out
    assert "  rank" in out
    assert f"{len(deltas(first)) - len(deltas(second))} only in the first: " in out
    assert main(["diff", "a", "a"]) == 0
    assert capsys.readouterr().out == "the same adapter\n"


def test_json_is_what_python_gives(first, second, tmp_path, capsys):
    one, other = first.save(tmp_path / "a"), second.save(tmp_path / "b")
    assert main(["diff", str(one), str(other), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(diff(first, second).to_json()))
    assert main(["diff", str(one), str(tmp_path / "none")]) == 1
