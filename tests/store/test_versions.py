"""Versions: added, found, loaded, stored once."""

import attrs
import pytest
import torch

from adapterkit import Adapter, ArtifactError, ConfigError, SelectionError, Store, TrustError, UnknownNameError
from adapterkit.artifact.layout import KEPT, MANIFEST, OURS, SIGNATURE, WEIGHTS
from adapterkit.store import is_reference
from tests.support import make_adapter


def blobs(store):
    return {path: path.stat().st_ino for path in (store.folder / "blobs").rglob("*") if path.is_file()}


def everything(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_added_is_found_and_loaded(store, adapters):
    first, second = adapters[:2]
    one = store.add(first, "cards", why="the first one", who="ann")
    two = store.add(second, "cards")
    assert (str(one), str(two), one.why, one.who, one.origin) == ("cards@1", "cards@2", "the first one", "ann", "")
    assert store.load("cards@1") == first
    assert store.load("cards") == second
    assert store.resolve(f"sha256:{first.digest[:8]}") == one
    assert store.resolve(f"cards@sha256:{second.digest}") == two
    assert store.names() == ["cards"]
    assert store.versions() == store.versions("cards") == [one, two]
    assert "cards@2" in store
    assert "cards@3" not in store
    assert "no reference" not in store


def test_a_store_is_made_when_it_is_first_written(tmp_path, adapters):
    store = Store(tmp_path / "deep" / "store")
    assert store.names() == []
    assert store.history() == []
    assert store.collect().versions == ()
    assert store.verify().versions == 0
    with pytest.raises(UnknownNameError, match="no adapter in the store 'cards'"):
        store.resolve("cards")
    with pytest.raises(UnknownNameError):
        store.promote("cards", "production")
    with pytest.raises(UnknownNameError), store.lease("cards"):
        pass
    assert not store.folder.exists()
    store.add(adapters[0], "cards")
    assert store.folder.exists()


def test_the_environment_says_where_the_store_is(tmp_path, monkeypatch):
    monkeypatch.setenv("ADAPTERKIT_STORE", str(tmp_path / "here"))
    assert Store().folder == tmp_path / "here"
    monkeypatch.delenv("ADAPTERKIT_STORE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Store().folder == tmp_path / ".adapterkit" / "store"


def test_an_adapter_that_is_the_newest_version_is_not_added_again(store, adapters):
    store.add(adapters[0], "cards")
    held = blobs(store)
    assert str(store.add(adapters[0], "cards")) == "cards@1"
    assert str(store.add(adapters[0], "tone")) == "tone@1"
    assert blobs(store) == held  # no blob was written, under another name either
    assert len(store.history()) == 2


def test_what_was_the_newest_before_is_a_new_version_again(store, adapters):
    for adapter in (adapters[0], adapters[1], adapters[0]):
        version = store.add(adapter, "cards")
    assert str(version) == "cards@3"
    assert str(store.resolve(f"sha256:{adapters[0].digest}")) == "cards@3"  # of two with this digest, the newer


def test_a_tensor_that_two_adapters_have_in_common_is_stored_once(store, large):
    names = list(large.tensors)
    other = attrs.evolve(large, tensors={**large.tensors, names[0]: large.tensors[names[0]] + 1})
    store.add(large, "cards")
    held = blobs(store)
    sizes = {piece.size for piece in store.files("cards").files[WEIGHTS].pieces}
    store.add(other, "cards")
    new = blobs(store).keys() - held.keys()
    grown = sum(path.stat().st_size for path in new)
    whole = sum(tensor.numel() * 4 for tensor in large.tensors.values())
    assert max(sizes) >= 1 << 16
    assert grown < whole * 0.6, "only the tensor that differs, and what is small"
    assert store.load("cards@1") == large
    assert store.load("cards@2") == other


@pytest.mark.parametrize("step", [7, 1000, (1 << 16) - 1, 1 << 30])
def test_pieces_are_read_as_one_file(store, large, tmp_path, step):
    store.add(large, "cards")
    whole = (large.save(tmp_path / "adapter") / WEIGHTS).read_bytes()
    with store.files("cards").open(WEIGHTS) as (stream, size):
        parts = list(iter(lambda: stream.read(step), b""))
    assert {len(part) for part in parts[:-1]} <= {step}
    assert b"".join(parts) == whole
    assert size == len(whole)


def test_a_folder_is_kept_byte_for_byte_and_its_card_written_anew(store, adapters, tmp_path):
    folder = adapters[0].save(tmp_path / "adapter")
    card = (folder / "README.md").read_bytes()
    (folder / "README.md").write_text("<script>alert(1)</script>\n")
    (folder / SIGNATURE).write_text("{}")
    (folder / "notes.txt").write_text("not an adapter's file")
    store.add(folder, "cards")
    out = store.checkout("cards", tmp_path / "out")
    assert {path.name for path in out.iterdir()} == set(OURS)
    assert all((out / name).read_bytes() == (folder / name).read_bytes() for name in KEPT)
    assert (out / "README.md").read_bytes() == card


def test_a_signature_that_came_later_is_kept(store, adapters, tmp_path):
    folder = adapters[0].save(tmp_path / "adapter")
    store.add(folder, "cards")
    (folder / SIGNATURE).write_text("{}")
    assert str(store.add(folder, "cards")) == "cards@2"
    assert str(store.add(folder, "cards")) == "cards@2"


def test_what_peft_wrote_gets_a_manifest(store, adapters, tmp_path):
    folder = adapters[0].save(tmp_path / "adapter")
    (folder / MANIFEST).unlink()
    version = store.add(folder, "cards", origin="hf://org/cards@0123abc")
    assert version.origin == "hf://org/cards@0123abc"
    assert MANIFEST in store.files(version).files
    assert all(torch.equal(store.load(version).tensors[name], one) for name, one in adapters[0].tensors.items())


@pytest.mark.parametrize("damage", ["weights", "manifest", "link", "nothing"])
def test_a_folder_that_the_trusted_loader_refuses_is_not_added(store, adapters, tmp_path, damage):
    store.add(adapters[1], "cards")
    before = everything(store.folder / "blobs")
    folder = adapters[0].save(tmp_path / "adapter")
    if damage == "weights":
        data = bytearray((folder / WEIGHTS).read_bytes())
        data[-1] ^= 1
        (folder / WEIGHTS).write_bytes(data)
    elif damage == "manifest":
        (folder / MANIFEST).write_text("{}")
    elif damage == "link":
        (folder / "adapter_config.json").unlink()
        (folder / "adapter_config.json").symlink_to("/etc/hostname")
    else:
        folder = tmp_path / "nothing"
    with pytest.raises(ArtifactError, match="is refused"):
        store.add(folder, "cards")
    assert everything(store.folder / "blobs") == before
    assert [str(one) for one in store.versions()] == ["cards@1"]
    assert list((store.folder / "staging").iterdir()) == []


def test_the_trust_policy_is_obeyed_on_the_way_in_and_out(store, adapters, tmp_path, monkeypatch):
    folder = adapters[0].save(tmp_path / "adapter")
    store.add(folder, "cards", origin="hf://org/cards@0123abc")
    policy = tmp_path / "trust.toml"
    policy.write_text('[[allow]]\nsource = "hf://other/"\n')
    monkeypatch.setenv("ADAPTERKIT_TRUST", str(policy))
    with pytest.raises(TrustError, match=r"version cards@1 of store .* is not let in"):
        store.load("cards")
    with pytest.raises(TrustError, match="is not let in"):
        store.add(folder, "tone")
    assert store.names() == ["cards"]


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Cards",
        "cards/1",
        "../cards",
        ".cards",
        "cards@1",
        "cards ",
        "a" * 97,
        "cárds",
        "c\0",
        "nul",
        "com1.x",
        "cards.",
    ],
)
def test_a_name_is_plain_or_refused(store, adapters, name):
    with pytest.raises(ConfigError, match="does not fit"):
        store.add(adapters[0], name)
    assert not store.folder.exists()


@pytest.mark.parametrize("text", ["line\nbreak", "\x1b[2J", "x" * 1001])
def test_a_text_for_the_journal_is_one_plain_line(filled, adapters, text):
    for call in (
        lambda: filled.add(adapters[0], "cards", why=text),
        lambda: filled.promote("cards", "production", who=text),
        lambda: filled.remove("cards", why=text),
    ):
        with pytest.raises(ConfigError, match="one line of at most"):
            call()


def test_what_the_environment_calls_the_user_is_one_plain_line_too(store, adapters, monkeypatch):
    monkeypatch.setenv("LOGNAME", "ann\x1b[2J\n\u202e" + "x" * 2000)
    version = store.add(adapters[0], "cards")
    assert version.who.startswith("ann [2J  xxx")
    assert len(version.who) == 1000
    assert [one.who for one in store.history()] == [version.who]


@pytest.mark.parametrize(
    "text", ["", "cards@", "cards@0", "cards@01", "@1", "cards@sha256:12", "sha256:xyz", "a/b", "cards@a@b"]
)
def test_a_reference_is_written_in_one_of_five_ways(store, text):
    assert not is_reference(text)
    with pytest.raises(ConfigError, match=r"the reference .* does not fit"):
        store.resolve(text)


def test_what_is_not_there_is_said_with_what_is(filled):
    with pytest.raises(UnknownNameError, match="did you mean 'cards'"):
        filled.resolve("card")
    with pytest.raises(UnknownNameError, match=r"no version 'cards@7'.*cards@1, cards@2, cards@3"):
        filled.resolve("cards@7")
    with pytest.raises(UnknownNameError, match="no alias 'cards@prodution'; did you mean 'cards@production'"):
        filled.resolve("cards@prodution")
    with pytest.raises(UnknownNameError, match="no version of 'cards' has such a digest"):
        filled.resolve("cards@sha256:00000000")


def test_the_beginning_of_a_digest_that_fits_two_is_refused(filled, monkeypatch):
    with filled._index.writing() as db:
        db.execute("UPDATE versions SET digest = '0123456789' || number")
    assert str(filled.resolve("sha256:01234567892")) == "cards@2"
    with pytest.raises(SelectionError, match="fits several adapters"):
        filled.resolve("sha256:012345678")


def test_a_number_is_never_given_again(store, adapters):
    store.add(adapters[0], "cards")
    store.add(adapters[1], "cards")
    store.remove("cards@2", why="wrong data", who="ann")
    assert str(store.add(adapters[1], "cards")) == "cards@3"
    with pytest.raises(UnknownNameError, match=r"no version 'cards@2': it was removed at 20.* by ann"):
        store.resolve("cards@2")


def test_a_checkout_replaces_an_adapter_and_nothing_else(filled, adapters, tmp_path):
    folder = filled.checkout("cards@1", tmp_path / "out")
    assert Adapter.load(filled.checkout("cards@2", folder)) == adapters[1]
    (folder / "diary.txt").write_text("mine")
    with pytest.raises(ArtifactError, match=r"diary\.txt"):
        filled.checkout("cards@1", folder)
    assert Adapter.load(folder) == adapters[1]
    with pytest.raises(SelectionError, match="lies in"):
        filled.checkout("cards@1", filled.folder / "staging" / "x")


def test_a_stack_of_methods_is_stored_as_well(store, base):
    soft = make_adapter(base, method="prompt_tuning", tokens=4)
    assert store.load(store.add(soft, "soft")) == soft


def test_an_origin_with_a_password_is_refused_and_not_repeated(store, adapters):
    with pytest.raises(ConfigError, match="it holds a password or a token") as refused:
        store.add(adapters[0], "cards", origin="https://me:hf_canary@example.org/cards@v1")
    assert "canary" not in str(refused.value)
    assert not store.folder.exists()
