"""Names: what may be asked for, what it means, and that nothing else is reached by them."""

import json
import shutil
import subprocess
import sys
import threading
import time

import attrs
import pytest

from adapterkit import Adapter, Base, Blend, Stack, Store, publish
from adapterkit.errors import (
    AdapterkitError,
    ArtifactError,
    BaseMismatchError,
    ConfigError,
    ConflictError,
    SelectionError,
    StoreError,
    UnknownNameError,
)
from adapterkit.serving.asking import Choice
from adapterkit.serving.catalogue import Catalogue
from adapterkit.testing import tiny_llama
from tests.support import ROOT, make_adapter


@pytest.fixture(scope="module")
def llama():
    return Base(tiny_llama())


@pytest.fixture(scope="module")
def adapters(llama):
    return [make_adapter(llama, seed=seed, target_modules=["q_proj"]) for seed in range(4)]


@pytest.fixture(scope="module")
def foreign(adapters):
    """An adapter of another base."""
    manifest = adapters[0].manifest
    other = attrs.evolve(manifest.base, fingerprint="0" * 64)
    return attrs.evolve(adapters[0], manifest=attrs.evolve(manifest, base=other))


@pytest.fixture
def store(tmp_path, adapters):
    """A store with two versions of cards, the first in production, and one of tone."""
    made = Store(tmp_path / "store")
    made.add(adapters[0], "cards")
    made.add(adapters[1], "cards")
    made.add(adapters[2], "tone")
    made.promote("cards@1", "production")
    return made


def parts_of(*weighted):
    return tuple((adapter.digest, weight) for adapter, weight in weighted)


# -- what names mean


def test_the_base_alone_has_its_own_name_and_none(llama):
    names = Catalogue(llama, base_name="small")
    assert names.resolve("small") == Choice("small")
    assert names.resolve("") == Choice("")
    assert not names.resolve("small").digest


def test_a_bases_folder_is_not_told_by_its_name(tmp_path):
    tiny_llama().save_pretrained(tmp_path / "models" / "small")
    assert Catalogue(Base(tmp_path / "models" / "small")).base_name == "small"


def test_names_weights_and_sums(llama, adapters):
    cards, tone = adapters[:2]
    names = Catalogue(llama, {"cards": cards, "tone": tone})
    assert names.resolve("cards") == Choice("cards", parts_of((cards, 1.0)), "cards")
    assert names.resolve("cards").digest == cards.digest
    assert names.resolve("cards*0.5").parts == parts_of((cards, 0.5))
    both = names.resolve("cards*0.7+tone*-0.3")
    assert both == Choice("cards*0.7+tone*-0.3", parts_of((cards, 0.7), (tone, -0.3)), "cards+tone")
    assert both.digest == Blend({cards: 0.7, tone: -0.3}).digest


def test_what_the_store_has_is_named_as_there(llama, adapters, store):
    names = Catalogue(llama, store=store)
    for asked, index in {
        "cards": 1,
        "cards@1": 0,
        "cards@production": 0,
        f"sha256:{adapters[0].digest}": 0,
        f"cards@sha256:{adapters[1].digest[:12]}": 1,
    }.items():
        assert names.resolve(asked) == Choice(asked, parts_of((adapters[index], 1.0)), "cards"), asked
    assert names.resolve("cards@production*0.5+tone").name == "cards+tone"


def test_what_the_operator_names_comes_before_what_the_store_has(llama, adapters, store):
    names = Catalogue(llama, {"cards": adapters[3]}, store=store)
    assert names.resolve("cards").digest == adapters[3].digest
    assert names.resolve("cards@2").digest == adapters[1].digest


def test_an_alias_that_moves_changes_new_requests_only(llama, adapters, store):
    names = Catalogue(llama, {"live": "cards@production"}, store=store)
    before = names.resolve("cards@production"), names.resolve("live")
    names.promote("cards", 2, "production", expect=1, who="ann", why="better")
    assert [one.digest for one in before] == [adapters[0].digest] * 2
    assert names.resolve("cards@production").digest == names.resolve("live").digest == adapters[1].digest
    names.rollback("cards@production", who="ann", why="it was not")
    assert names.resolve("live").digest == adapters[0].digest
    assert [(one.action, one.who) for one in store.history("cards@production")][-2:] == [
        ("promote", "ann"),
        ("rollback", "ann"),
    ]


def test_blends_are_taken_apart_and_their_weights_multiplied(llama, adapters, tmp_path):
    cards, tone, third, _ = adapters
    folders = {one: one.save(tmp_path / one.digest[:8]) for one in (cards, tone)}
    file = Blend({cards: 0.5, tone: 2.0}).save(tmp_path / "both.json", folders)
    names = Catalogue(llama, {"value": Stack(cards, tone), "file": file, "third": third})
    assert names.resolve("value").parts == parts_of((cards, 1.0), (tone, 1.0))
    assert names.resolve("file").digest == Blend({cards: 0.5, tone: 2.0}).digest
    assert names.resolve("file*0.5+third").parts == parts_of((cards, 0.25), (tone, 1.0), (third, 1.0))
    assert names.fetch(tone.digest) == tone
    with pytest.raises(SelectionError, match="twice"):
        names.resolve("file+value")


BAD = {
    "twice": ("cards+cards", SelectionError),
    "twice under two names": ("cards+same", SelectionError),
    "no weight": ("cards*", SelectionError),
    "not a number": ("cards*nan+tone", SelectionError),
    "infinite": ("cards*1e999", SelectionError),
    "words": ("cards*much", SelectionError),
    "no name": ("cards++tone", SelectionError),
    "too many": ("+".join(["cards"] * 17), SelectionError),
    "the base in a sum": ("small+cards", UnknownNameError),
    "unknown": ("cads", UnknownNameError),
    "unknown in a sum": ("cards+cads", UnknownNameError),
}


@pytest.mark.parametrize(("asked", "error"), BAD.values(), ids=BAD)
def test_what_makes_no_sense_is_refused(llama, adapters, asked, error):
    given = {"cards": adapters[0], "same": adapters[0], "tone": adapters[1]}
    with pytest.raises(error):
        Catalogue(llama, given, base_name="small").resolve(asked)


def test_a_wrong_name_suggests_the_right_one(llama, adapters, store):
    with pytest.raises(UnknownNameError, match="did you mean 'cards'"):
        Catalogue(llama, {"cards": adapters[0]}).resolve("cads")
    with pytest.raises(UnknownNameError, match="did you mean 'cards'"):
        Catalogue(llama, store=store).resolve("cads")


HOSTILE = [
    "../x",
    "../../etc/passwd",
    "/etc/passwd",
    "./cards",
    "C:\\cards",
    "cards\0",
    "\0",
    " ",
    "cards\n",
    "x" * 10_000,
    "+".join(["x" * 200] * 50),
    "cards*" + "9" * 5000,
    "cards*0." + "0" * 5000,
    "cards*" + "z" * 1000,
    "cards@" + "9" * 5000,
    "sha256:" + "a" * 5000,
    "hf://org/cards",
    "file:///etc",
    "http://169.254.169.254/",
    "сards",
    "ｃａｒｄｓ",
    "cards\u200b",
    "CARDS",
    "cards@../x",
    "sha256:../../x",
    "%2e%2e%2fx",
    "cards;rm",
    "serving.json",
    "index.sqlite",
]


@pytest.mark.parametrize("asked", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("with_store", [True, False])
def test_a_name_is_never_a_path_and_errors_stay_short(llama, adapters, store, monkeypatch, asked, with_store):
    folder = adapters[0].save(store.folder.parent / "cards")  # there is something that a path would find
    monkeypatch.chdir(folder.parent)
    names = Catalogue(llama, {"cards": adapters[0]}, store=store if with_store else None)

    def refuse(*_, **__):
        raise AssertionError("something was opened")

    monkeypatch.setattr(Adapter, "load", refuse)
    monkeypatch.setattr(Store, "load", refuse)
    monkeypatch.setattr("adapterkit.serving.places.find", refuse)
    for text in (asked, f"{asked}*0.5+cards"):
        with pytest.raises((UnknownNameError, ConfigError, SelectionError)) as caught:
            names.resolve(text)
        assert len(str(caught.value)) < 700
        assert set(text) & set("+*") or caught.type is UnknownNameError


def test_every_part_of_what_was_asked_for_is_counted_by_name(llama, adapters, store):
    assert (
        Catalogue(llama, {"x": adapters[3]}, store=store).resolve("x+cards@production+tone@1*0.2").name
        == "cards+tone+x"
    )


def test_nothing_is_read_to_find_out_what_a_name_means(llama, adapters, tmp_path, monkeypatch):
    folder = adapters[0].save(tmp_path / "cards")
    names = Catalogue(llama, {"cards": folder})
    shutil.rmtree(folder)
    assert names.resolve("cards").digest == adapters[0].digest


# -- where adapters lie


def test_adapters_are_read_from_where_they_lie(llama, adapters, store, tmp_path):
    folder = adapters[3].save(tmp_path / "fourth")
    names = Catalogue(llama, {"value": adapters[2], "folder": folder, "reference": "cards@1"}, store=store)
    assert names.fetch(names.resolve("value").digest) is adapters[2]
    for asked, adapter in {"folder": adapters[3], "reference": adapters[0], "cards@2": adapters[1]}.items():
        assert names.fetch(names.resolve(asked).digest) == adapter


def test_a_relative_folder_is_found_after_the_process_has_moved(llama, adapters, tmp_path, monkeypatch):
    adapters[0].save(tmp_path / "cards")
    monkeypatch.chdir(tmp_path)
    names = Catalogue(llama, {"x": "./cards"})
    monkeypatch.chdir("/")
    assert names.fetch(adapters[0].digest) == adapters[0]


def test_a_digest_stays_readable_when_its_name_moves_or_goes(llama, adapters, store):
    names = Catalogue(llama, {"value": adapters[3]}, store=store)
    chosen = names.resolve("cards"), names.resolve("value")
    assert names.values(chosen[1]) == [adapters[3]]
    assert not names.values(chosen[0])
    names.remove("cards")
    assert names.gone() == {adapters[0].digest, adapters[1].digest}
    names.remove("value")
    assert names.gone() == {adapters[3].digest}
    assert not names.gone()
    store.remove("cards@2")
    store.add(adapters[1], "elsewhere")
    assert names.fetch(chosen[0].digest) == adapters[1]


@pytest.mark.parametrize("replaced", [False, True])
def test_a_value_is_let_go_with_its_last_name(llama, adapters, replaced):
    names = Catalogue(llama, {"x": adapters[0], "y": adapters[0]})
    names.remove("y")
    assert not names.gone()
    assert names.fetch(adapters[0].digest) is adapters[0]
    if replaced:
        names.add("x", adapters[1], replace=True)
    else:
        names.remove("x")
    with pytest.raises(UnknownNameError):
        names.fetch(adapters[0].digest)


def test_a_folder_that_was_changed_is_refused_and_named(llama, adapters, tmp_path):
    folder = adapters[0].save(tmp_path / "cards")
    names = Catalogue(llama, {"cards": folder, "tone": adapters[2]})
    adapters[1].save(folder)
    with pytest.raises(ArtifactError, match=f"{folder.name}.*was changed while it was served"):
        names.fetch(names.resolve("cards").digest)
    assert names.fetch(names.resolve("tone").digest) == adapters[2]


def test_a_folder_that_is_damaged_is_refused(llama, adapters, tmp_path):
    folder = adapters[0].save(tmp_path / "cards")
    names = Catalogue(llama, {"cards": folder})
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\xff")
    with pytest.raises(ArtifactError, match="refused"):
        names.fetch(adapters[0].digest)


# -- naming


@pytest.mark.parametrize("name", ["../x", "", "Cards", "a b", "a+b", "x" * 97, "nul", "сards", "small", "a/b", "a@1"])
def test_names_that_do_not_fit_are_refused(llama, adapters, name):
    with pytest.raises(ConfigError):
        Catalogue(llama, {name: adapters[0]}, base_name="small")
    names = Catalogue(llama, base_name="small")
    with pytest.raises(ConfigError):
        names.add(name, adapters[0])
    assert names.listed() == []


def test_an_adapter_of_another_base_gets_no_name(llama, adapters, foreign, store, tmp_path):
    folder = foreign.save(tmp_path / "foreign")
    with pytest.raises(BaseMismatchError):
        Catalogue(llama, {"x": foreign})
    for served in (Catalogue(llama), Catalogue(llama, store=store)):
        before = served.listed()
        for source in (foreign, folder):
            with pytest.raises(BaseMismatchError):
                served.add("x", source)
        assert served.listed() == before
        assert store.names() == ["cards", "tone"]


def test_one_like_another_that_fits_is_still_seen_to_be_of_this_base(llama, adapters, foreign):
    names = Catalogue(llama, {"cards": adapters[0]})
    with pytest.raises(BaseMismatchError):
        names.add("x", foreign)


def test_one_whose_tensors_do_not_fit_gets_no_name(llama, adapters):
    tensors = {name: tensor[:1] for name, tensor in adapters[0].tensors.items()}
    with pytest.raises(ArtifactError, match="of another shape"):
        Catalogue(llama).add("x", attrs.evolve(adapters[0], tensors=tensors))


@pytest.mark.parametrize("source", ["nowhere", "cards@9", "./nowhere", "other@production"])
def test_what_is_not_there_gets_no_name(llama, store, source):
    names = Catalogue(llama, store=store)
    with pytest.raises((ArtifactError, UnknownNameError)):
        names.add("x", source)
    assert "x" not in names


def test_without_a_store_what_is_added_is_in_memory(llama, adapters, tmp_path):
    names = Catalogue(llama)
    served = names.add("cards", adapters[0].save(tmp_path / "cards"))
    assert (served.name, served.digest, served.method) == ("cards", adapters[0].digest, "lora")
    assert names.resolve("cards").digest == adapters[0].digest
    assert names.add("both", Blend({adapters[0]: 0.5, adapters[1]: 0.5})).digest == names.resolve("both").digest
    with pytest.raises(ConflictError, match="in use"):
        names.add("cards", adapters[1])
    names.add("cards", adapters[1], replace=True)
    assert names.resolve("cards").digest == adapters[1].digest
    names.remove("cards")
    with pytest.raises(UnknownNameError):
        names.resolve("cards")
    with pytest.raises(UnknownNameError):
        names.remove("cards")


def test_what_is_added_to_a_store_is_there_after_a_restart(llama, adapters, store, tmp_path):
    names = Catalogue(llama, store=store)
    served = names.add("new", adapters[3].save(tmp_path / "new"), who="ann")
    assert (served.digest, served.versions, served.method) == (adapters[3].digest, (1,), "lora")
    assert store.history("new")[0].who == "ann"
    assert Catalogue(llama, store=Store(store.folder)).resolve("new").digest == adapters[3].digest


def test_adding_is_durable_when_the_process_is_killed(adapters, store, tmp_path):
    folder = adapters[3].save(tmp_path / "new")
    script = (
        "import os, signal, sys; from adapterkit import Base, Store; from adapterkit.testing import tiny_llama;"
        "from adapterkit.serving.catalogue import Catalogue;"
        "names = Catalogue(Base(tiny_llama()), store=Store(sys.argv[1]));"
        "names.add('new', sys.argv[2]); names.remove('tone'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", script, store.folder, folder], cwd=ROOT, check=False)
    assert done.returncode == -9
    names = Catalogue(Base(tiny_llama()), store=Store(store.folder))
    assert names.resolve("new").digest == adapters[3].digest
    assert "tone" not in names


def test_a_name_in_the_store_is_replaced_by_a_newer_version(llama, adapters, store):
    names = Catalogue(llama, store=store)
    with pytest.raises(ConflictError):
        names.add("cards", adapters[3])
    assert names.add("cards", adapters[3], replace=True).versions == (1, 2, 3)
    assert names.resolve("cards").digest == adapters[3].digest
    assert names.resolve("cards@production").digest == adapters[0].digest


def test_a_reference_is_added_under_another_name(llama, adapters, store):
    names = Catalogue(llama, store=store)
    assert names.add("copy", "cards@production").digest == adapters[0].digest
    assert "copy" in store.names()


@pytest.mark.parametrize("with_store", [True, False])
def test_an_address_is_pulled_and_kept_with_where_it_comes_from(llama, adapters, tmp_path, monkeypatch, with_store):
    address, fit = f"file://{tmp_path}/place@v1", adapters[3]
    publish(fit, f"file://{tmp_path}/place", license="apache-2.0", base_model="org/tiny", tag="v1", unevaluated=True)
    monkeypatch.setenv("ADAPTERKIT_STORE", str(tmp_path / "mine"))
    store = Store(tmp_path / "mine")
    names = Catalogue(llama, {"given": address}, store=store if with_store else None)
    assert names.resolve("given").digest == names.add("new", address).digest == fit.digest
    assert names.fetch(fit.digest) == fit
    if with_store:
        assert store.resolve("new").origin.startswith(f"file://{tmp_path}/place@")


def test_a_store_keeps_no_blends(llama, adapters, store):
    names = Catalogue(llama, store=store)
    with pytest.raises(SelectionError, match=r"cards\*0\.7"):
        names.add("both", Stack(adapters[0], adapters[1]))
    assert "both" not in names


def test_a_store_that_cannot_be_written_gives_no_name(llama, adapters, store, monkeypatch):
    names = Catalogue(llama, store=store)

    def full(*_, **__):
        raise StoreError("the disk is full")

    monkeypatch.setattr(Store, "add", full)
    with pytest.raises(StoreError, match="full"):
        names.add("x", adapters[3])
    assert "x" not in names


def test_a_folder_that_is_swapped_while_it_is_added_is_not_kept(llama, adapters, foreign, store, tmp_path, monkeypatch):
    folder = adapters[3].save(tmp_path / "new")
    add = Store.add

    def swapped(self, source, name, **options):
        foreign.save(folder)
        return add(self, source, name, **options)

    monkeypatch.setattr(Store, "add", swapped)
    names = Catalogue(llama, store=store)
    with pytest.raises(ArtifactError, match="while it was added"):
        names.add("x", folder)
    assert "x" not in names


def test_a_name_out_of_service_stays_so_after_a_restart_until_it_is_added(llama, adapters, store):
    names = Catalogue(llama, store=store)
    other = Catalogue(llama, store=Store(store.folder))  # another server of the same store
    names.remove("cards", who="ann")
    for served in (names, other, Catalogue(llama, store=Store(store.folder))):
        for asked in ("cards", "cards@1", "cards@production", f"sha256:{adapters[0].digest}"):
            with pytest.raises(UnknownNameError, match="out of service"):
                served.resolve(asked)
        assert [one.name for one in served.listed()] == ["tone"]
    assert len(store.versions("cards")) == 2  # nothing is deleted
    store.check()
    assert names.add("cards", adapters[1]).digest == adapters[1].digest
    assert other.resolve("cards@production").digest == adapters[0].digest


def test_an_adapter_that_has_another_name_is_still_had_by_its_digest(llama, adapters, store):
    names = Catalogue(llama, store=store)
    store.add(adapters[0], "again")
    names.remove("again")
    assert names.resolve(f"sha256:{adapters[0].digest}").name == "cards"


def test_removing_an_operators_name_does_not_uncover_the_stores(llama, adapters, store):
    names = Catalogue(llama, {"cards": adapters[3]}, store=store)
    names.remove("cards")
    with pytest.raises(UnknownNameError):
        names.resolve("cards")


def test_a_damaged_list_of_what_is_out_of_service_lets_nothing_through(llama, store):
    names = Catalogue(llama, store=store)
    (store.folder / "serving.json").write_text('{"schema": 1}', encoding="utf-8")
    with pytest.raises(StoreError, match=r"serving\.json"):
        names.resolve("cards")


def test_who_took_a_name_out_of_service_is_written_down(llama, store):
    Catalogue(llama, store=store).remove("cards", who="ann")
    said = json.loads((store.folder / "serving.json").read_text(encoding="utf-8"))
    assert said["withdrawn"]["cards"]["who"] == "ann"
    assert not list(store.folder.glob(".serving*"))


def test_aliases_need_a_store(llama):
    for ask in (lambda names: names.promote("cards", 1, "production"), lambda names: names.rollback("cards@x")):
        with pytest.raises(SelectionError, match="store=Store"):
            ask(Catalogue(llama))


def test_an_alias_that_moved_meanwhile_is_a_conflict(llama, store):
    names = Catalogue(llama, store=store)
    with pytest.raises(ConflictError):
        names.promote("cards", 2, "production", expect=2)


# -- what is listed


def test_what_is_listed(llama, adapters, store, tmp_path):
    folder = adapters[3].save(tmp_path / "fourth")
    names = Catalogue(llama, {"mine": folder, "live": "cards@production"}, store=store)
    found = {one.name: one for one in names.listed()}
    assert list(found) == ["cards", "live", "mine", "tone"]
    cards, live, mine = found["cards"], found["live"], found["mine"]
    assert (cards.digest, cards.source, cards.versions) == (adapters[1].digest, "store", (1, 2))
    assert dict(cards.aliases) == {"production": "cards@1"}
    assert (mine.digest, mine.method, mine.source, mine.versions) == (adapters[3].digest, "lora", str(folder), ())
    assert mine.bytes == sum(tensor.nbytes for tensor in adapters[3].tensors.values())
    assert live.digest == adapters[0].digest
    now = time.time()
    assert all(now - 600 < one.created <= now + 1 and one.bytes for one in found.values())
    names.fetch(adapters[1].digest)
    assert {one.name: one.method for one in names.listed()}["cards"] == "lora"


def test_one_name_is_told_of_by_itself(llama, adapters, store):
    names = Catalogue(llama, {"mine": adapters[3]}, store=store)
    assert [names.served(one.name) for one in names.listed()] == names.listed()
    names.remove("tone")
    for name in ("nothing", "tone", "../x", "cards@1"):
        with pytest.raises(UnknownNameError):
            names.served(name)


def test_a_reference_that_means_nothing_any_more_is_listed_without_a_digest(llama, store):
    names = Catalogue(llama, {"live": "tone@1"}, store=store)
    store.remove("tone@1")
    assert next(one for one in names.listed() if one.name == "live").digest == ""
    with pytest.raises(UnknownNameError):
        names.resolve("live")


def test_names_are_added_removed_and_asked_for_from_many_threads(llama, adapters):
    names, failed = Catalogue(llama), []

    def work(index):
        try:
            for _ in range(5):
                names.add(f"x{index}", adapters[index % 4])
                assert names.resolve(f"x{index}").digest == adapters[index % 4].digest
                names.listed()
                names.remove(f"x{index}")
        except AdapterkitError as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert names.listed() == []


def test_of_many_who_add_one_name_at_once_one_wins(llama, adapters, store):
    names, outcomes = Catalogue(llama, store=store), []

    def add(adapter):
        try:
            outcomes.append(names.add("new", adapter).digest)
        except ConflictError:
            outcomes.append("conflict")

    threads = [threading.Thread(target=add, args=(adapter,)) for adapter in adapters]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes)[1:] == ["conflict"] * 3
    assert len(store.versions("new")) == 1
