"""``adapterkit store``: the same on the command line."""

import json
import subprocess
import sys

import pytest

from adapterkit import Adapter
from adapterkit.cli import main


@pytest.fixture
def run(filled, capsys, monkeypatch):
    """Run a command on a store with three versions of cards; its exit code, what it prints, and what it says."""
    monkeypatch.setenv("ADAPTERKIT_STORE", str(filled.folder))

    def call(*words):
        code = main(["store", *map(str, words)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_versions_are_added_listed_and_shown(run, filled, adapters, tmp_path):
    folder = adapters[0].save(tmp_path / "adapter")
    assert run("add", folder, "tone", "--why", "first try", "--who", "ann")[:2] == (0, "tone@1\n")
    code, out, _ = run("list")
    rows = out.splitlines()
    assert code == 0
    assert rows[0].split() == ["VERSION", "ALIASES", "DIGEST", "SIZE", "ADDED", "BY", "WHY"]
    assert rows[2].startswith(f"cards@2  production  {adapters[1].digest[:12]}  ")
    assert rows[4].endswith("ann" + " " * (rows[0].index("WHY") - rows[0].index("BY") - 3) + "first try")
    assert len(run("list", "tone")[1].splitlines()) == 2
    out = run("show", "cards@production")[1]
    assert adapters[1].digest in out
    assert "aliases   cards@production" in out
    assert "made here" in out
    assert run("show", "cards", "--lineage")[1].startswith(f"lora {adapters[2].digest[:12]}")


def test_what_lists_gives_json(run, filled):
    assert [one["aliases"] for one in json.loads(run("list", "--json")[1])] == [[], ["production"], []]
    assert json.loads(run("show", "cards@1", "--json")[1])["adapter"]["method"] == "lora"
    assert json.loads(run("show", "cards@1", "--lineage", "--json")[1])["digest"] == filled.resolve("cards@1").digest
    assert [one["action"] for one in json.loads(run("history", "cards@production", "--json")[1])] == ["promote"] * 2
    assert json.loads(run("live", "--json")[1])["cards@production"]["number"] == 2
    assert json.loads(run("collect", "--dry-run", "--json")[1]) == {
        "versions": [],
        "blobs": 0,
        "bytes": 0,
        "staging": 0,
    }
    assert json.loads(run("verify", "--json")[1])["problems"] == []


def test_aliases_move(run, filled):
    assert run("promote", "cards@3", "production", "--expect", "2", "--why", "better")[:2] == (0, "cards@3\n")
    code, _, err = run("promote", "cards@1", "production", "--expect", "cards@2")
    assert (code, err.startswith("error: cards@production points at cards@3, not at cards@2")) == (1, True)
    assert run("promote", "cards@1", "staging", "--expect", "none")[0] == 0
    assert run("rollback", "cards@production")[1] == "cards@2\n"
    assert run("protect", "cards@production")[0] == 0
    code, _, err = run("rollback", "cards@production")
    assert code == 2
    assert "(--expect …) and why (--why …)" in err
    assert run("unprotect", "cards@production")[0] == 0
    assert run("unalias", "cards@staging")[0] == 0
    out = run("history", "cards@production")[1]
    assert "cards@production: cards@2 → cards@3" in out
    assert run("live")[1].startswith("cards@production  cards@2  ")
    assert run("live", "--at", "2001-01-01T00:00:00Z")[1] == ""
    code, _, err = run("live", "--at", "yesterday")
    assert (code, "--at 'yesterday' does not fit" in err or "--at yesterday does not fit" in err) == (2, True)


def test_versions_move_between_stores(run, filled, adapters, tmp_path):
    assert Adapter.load(run("checkout", "cards@1", tmp_path / "out")[1].strip()) == adapters[0]
    assert run("export", tmp_path / "cards.tar", "cards@1", "cards@2")[0] == 0
    code, out, err = run("import", tmp_path / "cards.tar", "--store", tmp_path / "other")
    assert (code, out) == (0, "cards@1\ncards@2\n")
    assert "cards@production is set" in err
    code, out, err = run("import", tmp_path / "cards.tar", "--store", tmp_path / "other")
    assert (code, out) == (0, "")
    assert "cards@1 is here already" in err


def test_what_nothing_needs_is_collected(run, filled):
    assert run("remove", "cards@3", "--why", "wrong data")[:2] == (0, "cards@3\n")
    assert "0 versions and 2 blobs" in run("collect", "--grace", "0s", "--dry-run")[2]
    assert run("collect", "--grace", "0s")[2].startswith("deleted 0 versions and 2 blobs of ")
    assert run("collect", "--grace", "0s")[2].startswith("deleted 0 versions and 0 blobs of ")
    code, _, err = run("collect", "--grace", "soon")
    assert (code, "--grace 'soon' does not fit" in err) == (2, True)


def test_verify_lists_the_damage_and_fails(run, filled):
    assert run("verify")[0] == 0
    path = filled._blobs.path(filled.files("cards@2").files["adapterkit.json"].pieces[0].sha256)
    path.unlink()
    code, out, err = run("verify")
    assert (code, out) == (1, f"cards@2: adapterkit.json: blob {path.name} is missing\n")
    assert "is damaged, as listed" in err
    code, out, _ = run("verify", "--json")
    assert (code, len(json.loads(out)["problems"])) == (1, 1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("show", "card"), "did you mean 'cards'"),
        (("show", "cards@"), "a reference is cards, cards@3"),
        (("remove", "cards@2"), "cards@production points at it"),
        (("rollback", "cards"), "names no alias"),
        (("add", "nowhere", "Cards"), "does not fit"),
    ],
)
def test_a_misuse_is_said_and_exits_with_2(run, words, said):
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert said in err


def test_listing_needs_no_torch(filled):
    code = "import sys; from adapterkit.cli import main; main(['store', 'list', '--json']); sys.exit('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"ADAPTERKIT_STORE": str(filled.folder), "PATH": ""},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0
    assert len(json.loads(done.stdout)) == 3
