"""Stack and Blend as values: what they are made of, what is refused, and how they are saved by reference."""

import json
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from adapterkit import Adapter, ArtifactError, Base, Blend, SelectionError, Stack
from adapterkit.artifact.manifest import json_digest
from adapterkit.compose import parse
from adapterkit.testing import tiny_llama
from tests.support import make_adapter


@pytest.fixture(scope="module")
def trio():
    base = Base(tiny_llama())
    return [make_adapter(base, rank=2, seed=seed) for seed in range(3)]


@pytest.fixture(scope="module")
def folders(trio, tmp_path_factory):
    root = tmp_path_factory.mktemp("adapters")
    return {adapter: adapter.save(root / name) for adapter, name in zip(trio, "abc", strict=True)}


def weights(acting):
    return [weight for _, weight in acting.parts]


# -- values -----------------------------------------------------------------------------------------------------------


def test_a_blend_is_its_adapters_and_weights_in_order(trio):
    a, b, c = trio
    blend = Blend({b: 0.7, a: -0.3, c: 2})
    assert blend.adapters == (b, a, c)
    assert blend.parts == ((b, 0.7), (a, -0.3), (c, 2.0))
    assert repr(blend) == f"<Blend 0.7 × {b.digest[:12]} + -0.3 × {a.digest[:12]} + 2 × {c.digest[:12]}>"


def test_a_stack_is_a_blend_of_ones(trio):
    a, b, _ = trio
    assert Stack(a, b) == Blend({a: 1, b: 1.0})
    assert hash(Stack(a, b)) == hash(Blend({a: 1, b: 1}))
    assert Stack(a).adapters == (a,)
    assert len({Stack(a, b), Stack(b, a), Blend({a: 1.0, b: 0.5}), Blend({a: 1.0}), Stack(a)}) == 4


def test_the_digest_is_of_what_acts_and_not_of_how_it_was_written(trio):
    a, b, c = trio
    assert Blend({Blend({a: 0.5, b: 1.0}): 2.0, c: 1.0}).digest == Blend({a: 1.0, b: 2.0, c: 1.0}).digest
    assert len({Blend({a: w, b: 1.0}).digest for w in (1.0, 0.5, -1.0, 1.0 + 1e-12)}) == 4
    assert Blend({a: 1.0}).digest != a.digest


def test_blends_in_blends_are_taken_apart(trio):
    a, b, c = trio
    inner = Stack(a, Blend({b: 0.5}))
    assert Blend({inner: 0.5, c: -1.0}).parts == ((a, 0.5), (b, 0.25), (c, -1.0))
    assert Stack(inner, c).parts == ((a, 1.0), (b, 0.5), (c, 1.0))


def test_numbers_of_numpy_are_weights(trio):
    assert weights(Blend({trio[0]: np.float32(0.5), trio[1]: np.int64(2)})) == [0.5, 2.0]


@given(given_weights=st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3), factor=st.floats(-1e3, 1e3))
def test_weights_of_nested_blends_multiply(trio, given_weights, factor):
    blend = Blend(dict(zip(trio, given_weights, strict=True)))
    assert weights(Blend({blend: factor})) == [factor * weight for weight in given_weights]


def test_what_is_no_blend_is_refused(trio):
    a, b, _ = trio
    for wrong in (float("nan"), float("inf"), "0.5", None, True, torch.tensor(0.5)):
        with pytest.raises(SelectionError, match="a weight must be a finite number, not"):
            Blend({a: 1.0, b: wrong})
    for huge in (10**400, -(10**5000)):
        with pytest.raises(SelectionError, match="a weight must be a finite number, and one of them is too large"):
            Blend({a: 1.0, b: huge})
    with pytest.raises(SelectionError, match="no finite product"):
        Blend({Blend({a: 1e300}): 1e300})
    with pytest.raises(SelectionError, match="is made of a weight for each adapter"):
        Blend([a, b])
    with pytest.raises(SelectionError, match="1 to 1000 adapters, not 0"):
        Blend({})
    with pytest.raises(SelectionError, match="1 to 1000 adapters, not 0"):
        Stack()
    with pytest.raises(SelectionError, match=r"a Stack or a Blend acts, not 'cards'; it may lie there: Adapter\.load"):
        Stack(a, "cards")
    with pytest.raises(SelectionError, match="name them one by one"):
        Stack([a, b])
    with pytest.raises(SelectionError, match="in the stack twice; to act twice as strongly"):
        Stack(a, a)
    with pytest.raises(SelectionError, match="in the blend twice; give it one weight"):
        Blend({a: 1.0, Stack(a, b): 0.5})


def test_a_blend_cannot_be_changed(trio):
    blend = Stack(*trio)
    with pytest.raises(AttributeError):
        blend.parts = ()


# -- by reference -----------------------------------------------------------------------------------------------------


def test_saved_and_loaded_is_the_same(trio, folders, tmp_path):
    a, b, c = trio
    blend = Blend({b: 0.1 + 0.2, a: -1e-7, c: 3.0})
    file = blend.save(tmp_path / "deep" / "blend.json", folders)
    assert file == tmp_path / "deep" / "blend.json"
    again = Blend.load(file)
    assert again == blend
    assert again.parts == blend.parts
    assert Blend.load(str(file)).digest == blend.digest
    assert blend.save(tmp_path / "deep" / "twice.json", folders).read_bytes() == file.read_bytes()
    assert sorted(path.name for path in file.parent.iterdir()) == ["blend.json", "twice.json"]


def test_adapters_that_are_at_hand_are_not_read(trio, tmp_path):
    file = Stack(*trio).save(tmp_path / "stack.json", {trio[0]: tmp_path / "gone"})
    assert Blend.load(file, trio).adapters == tuple(trio)
    assert "folder" not in json.loads(file.read_text())["parts"][1]


def test_folders_are_found_from_where_the_file_is(trio, tmp_path, monkeypatch):
    a, b, _ = trio
    here = tmp_path / "here"
    blend = Blend({a: 0.5, b: 0.5})
    blend.save(here / "blend.json", {one: one.save(here / "parts" / one.digest[:4]) for one in (a, b)})
    shutil.move(here, tmp_path / "there")
    assert Blend.load(tmp_path / "there" / "blend.json") == blend
    monkeypatch.chdir(tmp_path / "there" / "parts")
    assert Blend.load("../blend.json") == blend


def test_links_do_not_mislead(trio, tmp_path):
    a, true = trio[0], tmp_path / "true" / "deep"
    true.mkdir(parents=True)
    (tmp_path / "link").symlink_to(true)
    Stack(a).save(tmp_path / "link" / "stack.json", {a: a.save(tmp_path / "a")})
    (tmp_path / "stack.json").symlink_to(true / "stack.json")
    for file in (tmp_path / "link" / "stack.json", true / "stack.json", tmp_path / "stack.json"):
        assert Blend.load(file) == Stack(a)


def test_an_adapter_that_is_not_there_is_named(trio, folders, tmp_path):
    a, b, _ = trio
    nowhere = Stack(a, b).save(tmp_path / "a.json", {a: folders[a]})
    with pytest.raises(
        ArtifactError, match=f"needs the adapter {b.digest[:12]}, and says nothing of where it is: pass"
    ):
        Blend.load(nowhere)
    moved = Stack(a, b).save(tmp_path / "b.json", {a: folders[a], b: tmp_path / "moved"})
    with pytest.raises(ArtifactError, match="moved' is refused: there is no such folder"):
        Blend.load(moved)


def test_another_adapter_in_the_folder_is_refused(trio, tmp_path):
    a, b, c = trio
    place = {a: a.save(tmp_path / "a"), b: b.save(tmp_path / "b")}
    file = Stack(a, b).save(tmp_path / "stack.json", place)
    c.save(tmp_path / "b")
    with pytest.raises(
        ArtifactError, match=f"needs the adapter {b.digest[:12]}, and 'b' holds another now: {c.digest[:12]}"
    ):
        Blend.load(file)


def test_the_base_is_a_part_of_which_adapter_is_meant(trio, tmp_path):
    other = make_adapter(Base(tiny_llama(seed=1)), rank=2, seed=0)
    mine = trio[0]
    assert all(torch.equal(mine.tensors[name], other.tensors[name]) for name in mine.tensors)
    file = Stack(mine).save(tmp_path / "stack.json")
    with pytest.raises(ArtifactError, match="says nothing of where it is"):
        Blend.load(file, [other])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda values: values["parts"][0].update(weight=9.0), "changed after it was written"),
        (lambda values: values["parts"].reverse(), "changed after it was written"),
        (lambda values: values["parts"].pop(), "changed after it was written"),
        (lambda values: values.update(digest="0" * 64), "changed after it was written"),
        (lambda values: values.update(schema=2), "its schema is 2, and 1 is known here"),
        (lambda values: values.pop("parts"), "parts is no list"),
        (lambda values: values["parts"][0].update(weight="0.5"), "parts is no list of digests and weights"),
        (lambda values: values["parts"][0].update(folder=3), "parts is no list of digests and weights"),
        (lambda values: values["parts"][0].update(digest=["a"]), "parts is no list of digests and weights"),
        (lambda values: values["parts"][0].update(weight=float("nan")), "NaN is not a JSON number"),
    ],
)
def test_a_file_that_was_tampered_with_is_refused(trio, folders, tmp_path, change, said):
    file = Blend(dict.fromkeys(trio, 0.5)).save(tmp_path / "blend.json", folders)
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))
    with pytest.raises(ArtifactError, match=said):
        Blend.load(file)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 10_000, '{"schema": 1, "schema": 1}', "\x00"])
def test_a_file_of_another_kind_is_refused(tmp_path, text):
    (tmp_path / "blend.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"blend\.json"):
        Blend.load(tmp_path / "blend.json")


def test_a_folder_that_is_no_path_is_refused(trio, tmp_path):
    said = [[trio[0].digest, 0.5]]
    parts = [{"digest": trio[0].digest, "weight": 0.5, "folder": "a\0b"}]
    (tmp_path / "blend.json").write_text(json.dumps({"schema": 1, "digest": json_digest(said), "parts": parts}))
    with pytest.raises(ArtifactError, match="is no path"):
        Blend.load(tmp_path / "blend.json")


@pytest.mark.parametrize("count", [0, 1001])
def test_a_file_of_too_few_or_too_many_parts_is_refused(tmp_path, count):
    said = [[str(number), 1.0] for number in range(count)]
    parts = [{"digest": digest, "weight": weight} for digest, weight in said]
    (tmp_path / "blend.json").write_text(json.dumps({"schema": 1, "digest": json_digest(said), "parts": parts}))
    with pytest.raises(ArtifactError, match="parts is no list of digests and weights"):
        Blend.load(tmp_path / "blend.json")


def test_a_file_that_names_an_adapter_twice_is_refused(trio, folders, tmp_path):
    said = [[trio[0].digest, weight] for weight in (0.5, 0.25)]
    parts = [{"digest": digest, "weight": weight, "folder": str(folders[trio[0]])} for digest, weight in said]
    (tmp_path / "blend.json").write_text(json.dumps({"schema": 1, "digest": json_digest(said), "parts": parts}))
    with pytest.raises(ArtifactError, match="names an adapter twice"):
        Blend.load(tmp_path / "blend.json")


def test_what_cannot_be_read_or_written_is_named(trio, tmp_path):
    with pytest.raises(ArtifactError, match=r"none\.json' cannot be read: none\.json is missing"):
        Blend.load(tmp_path / "none.json")
    with pytest.raises(ArtifactError, match="cannot be read"):
        Blend.load(tmp_path)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ArtifactError, match="cannot be written"):
        Stack(*trio).save(tmp_path / "file" / "stack.json")
    assert (tmp_path / "file").read_text() == "mine"
    for place, folder in (("x\0y", "a"), ("stack.json", "a\0b")):
        with pytest.raises(ArtifactError, match="cannot be written: embedded null byte"):
            Stack(trio[0]).save(tmp_path / place, {trio[0]: folder})
    with pytest.raises(ArtifactError, match="is no path"):
        Blend.load(tmp_path / "x\0y")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_failed_save_leaves_what_was_there(trio, tmp_path, monkeypatch):
    file = Stack(trio[0]).save(tmp_path / "stack.json")
    before = file.read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(file), "replace", full)
    with pytest.raises(ArtifactError, match="No space left"):
        Stack(*trio).save(file)
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["stack.json"]


# -- texts ------------------------------------------------------------------------------------------------------------


def test_a_text_is_an_adapter_a_stack_or_a_blend(trio):
    known = dict(zip(("cards", "tone", "brief"), trio, strict=True))
    find = known.__getitem__
    a, b, c = trio
    assert parse("cards", find) is a
    assert parse(" cards ", find) is a
    assert isinstance(parse("cards+tone", find), Stack)
    assert parse("cards+tone", find) == Stack(a, b)
    assert parse("cards*0.7 + tone*-0.3", find).parts == ((a, 0.7), (b, -0.3))
    assert parse("cards*1e-2+tone+brief*2", find).parts == ((a, 0.01), (b, 1.0), (c, 2.0))
    assert parse("cards*0.5", find).parts == ((a, 0.5),)


def test_a_name_may_stand_for_a_blend(trio):
    a, b, c = trio
    assert parse("both*0.5+c", {"both": Stack(a, b), "c": c}.__getitem__) == Blend({a: 0.5, b: 0.5, c: 1.0})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cards*", "'' is no weight; write name"),
        ("cards*much", "'much' is no weight"),
        ("cards*0.5*2", r"'0.5\*2' is no weight"),
        ("cards+", "lacks the name of an adapter"),
        ("", "lacks the name of an adapter"),
        ("*0.5", "lacks the name of an adapter"),
        ("cards+cards", "names an adapter twice"),
        ("cards*0.5+cards*0.5", "names an adapter twice"),
        ("cards*nan", "a weight must be a finite number, not nan"),
    ],
)
def test_a_text_that_means_nothing_is_refused(trio, text, said):
    with pytest.raises(SelectionError, match=said):
        parse(text, {"cards": trio[0]}.__getitem__)


def test_what_find_raises_is_raised():
    def find(name):
        raise SelectionError(f"no adapter {name!r}")

    with pytest.raises(SelectionError, match="no adapter 'tone'"):
        parse("tone*0.5", find)


def test_a_base_loads_the_file_of_a_blend(trio, folders, tmp_path):
    base = Base(tiny_llama())
    file = Blend({trio[0]: 0.5, trio[1]: 0.5}).save(tmp_path / "blend.json", folders)
    loaded = base.load(file)
    assert loaded == Blend({trio[0]: 0.5, trio[1]: 0.5})
    assert set(base.resident) == {trio[0], trio[1]}
    here = Stack(trio[0], trio[1]).save(tmp_path / "stack.json")
    assert base.load(here) == Stack(trio[0], trio[1])
    assert isinstance(base.load(folders[trio[2]]), Adapter)
