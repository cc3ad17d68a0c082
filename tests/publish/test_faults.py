"""A Hub that misbehaves: never half a version, never a lost one, and a plain message."""

import sys

import pytest

from adapterkit import ArtifactError, ConflictError, RemoteError, publish, pull
from adapterkit.publishing import revisions
from adapterkit.testing.hub import Fault
from tests.publish.conftest import ABOUT, started

URL = "hf://org/cards"
FILES = {"README.md", "adapter_config.json", "adapter_model.safetensors", "adapterkit.json"}


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    """What is waited for between two tries is not what is tested here."""
    monkeypatch.setattr("time.sleep", lambda _seconds: None)


def versions(hub):
    """The files of every commit of the repository that holds any of an adapter."""
    if "org/cards" not in hub.repositories:
        return []
    found = [FILES & set(hub.repository("org/cards").files(one.id)) for one in revisions(URL)]
    return [names for names in found if names]


@pytest.mark.parametrize("kind", ["error", "hang_up", "rate_limited", "lost_answer"])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "HEAD"])
def test_what_goes_wrong_once_is_tried_again(hub, make, store, kind, method):
    publish(make(seed=1), URL, **ABOUT)
    fault = hub.faults.add(Fault(kind, path=".*", method=method, seconds=0))
    made = publish(make(seed=2), URL, **{**ABOUT, "tag": "v2"})
    assert fault.struck == 1
    assert versions(hub) == [FILES, FILES]
    assert store.load(pull(f"{URL}@v2", store=store)) == make(seed=2)
    assert revisions(URL)[0].id == made.revision


@pytest.mark.parametrize("kind", ["error", "hang_up", "rate_limited"])
@pytest.mark.parametrize("path", ["/preupload/", "/commit/", "objects/batch", "/tag/", "/resolve/"])
def test_what_stays_broken_is_said_and_goes_on_afterwards(hub, make, store, kind, path):
    publish(make(seed=1), URL, **ABOUT)
    hub.faults.add(Fault(kind, path=path, times=None, seconds=0))
    with pytest.raises(RemoteError, match="hf://org/cards"):
        publish(make(seed=2), URL, **{**ABOUT, "tag": "v2"})
    hub.faults.clear()
    assert set(map(frozenset, versions(hub))) == {frozenset(FILES)}
    publish(make(seed=2), URL, **{**ABOUT, "tag": "v2"})
    assert versions(hub) == [FILES, FILES]
    assert store.load(pull(URL, store=store)) == make(seed=2)


def test_who_asks_for_patience_is_given_up_on_when_it_is_too_much(hub, make):
    hub.faults.add(Fault("rate_limited", times=None, seconds=3600))
    with pytest.raises(RemoteError, match="fewer requests"):
        publish(make(), URL, **ABOUT)


def test_a_concurrent_publisher_loses_nothing_and_is_not_overwritten(hub, make):
    publish(make(seed=1), URL, **ABOUT)
    hub.faults.add(Fault("stale_parent"))
    with pytest.raises(ConflictError, match="changed by somebody else meanwhile"):
        publish(make(seed=2), URL, **{**ABOUT, "tag": "v2"})
    found = revisions(URL)
    assert found[0].message == "Somebody else's commit"
    assert len(found) == 2
    publish(make(seed=2), URL, **{**ABOUT, "tag": "v2"})
    assert "somebody-else.txt" in hub.repository("org/cards").files()


def test_a_server_that_takes_a_stale_parent_keeps_both_and_it_is_said(monkeypatch, make, caplog):
    with started(monkeypatch, xet=False, enforce_parent=False) as hub:
        publish(make(seed=1), URL, **ABOUT)
        hub.faults.add(Fault("stale_parent"))
        publish(make(seed=2), URL, **{**ABOUT, "tag": "v2"})
        assert "somebody else published to hf://org/cards meanwhile" in caplog.text
        assert [one.message for one in revisions(URL)][1] == "Somebody else's commit"


def test_an_answer_that_was_lost_is_no_second_version(hub, make):
    hub.faults.add(Fault("lost_answer", path="/commit/"))
    made = publish(make(), URL, **ABOUT)
    assert [(one.id, one.tags) for one in revisions(URL)] == [(made.revision, ("v1",))]


@pytest.mark.parametrize("name", sorted(FILES))
def test_other_bytes_than_were_sent_are_named_and_get_no_tag(hub, make, store, name):
    hub.faults.add(Fault("wrong_bytes", path=name, times=None))
    with pytest.raises(RemoteError, match=f"gives back another {name}|consistency|size"):
        publish(make(), URL, **ABOUT)
    assert revisions(URL)[0].tags == ()


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("wrong_bytes", {"path": "adapter_model.safetensors"}),
        ("wrong_bytes", {"path": "adapterkit.json"}),
        ("wrong_bytes", {"path": "adapter_config.json"}),
        ("cut", {}),
        ("endless", {}),
        ("lying_length", {"by": 10}),
        ("lying_length", {"by": -10}),
        ("lying_size", {"by": 10}),
        ("lying_size", {"by": -10}),
        ("redirected", {}),
    ],
)
def test_a_pull_of_what_is_not_right_leaves_nothing(hub, make, store, kind, options):
    publish(make(), URL, **ABOUT)
    hub.faults.add(Fault(kind, times=None, **options))
    with pytest.raises((RemoteError, ArtifactError)) as refused:
        pull(URL, store=store)
    assert URL in str(refused.value)
    assert store.versions() == []
    hub.faults.clear()
    assert store.load(pull(URL, store=store)) == make()
    assert not any(store.verify().problems)


@pytest.mark.parametrize("terminal", [False, True])
def test_no_more_arrives_than_was_named(hub, make, store, monkeypatch, terminal):
    publish(make(), URL, **ABOUT)
    hub.faults.add(Fault("endless", times=None))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    with pytest.raises(RemoteError, match="more than the"):
        pull(URL, store=store)
    assert sum(path.stat().st_size for path in store.folder.rglob("*") if path.is_file()) < 1 << 20


def test_an_upload_that_the_server_loses_is_noticed(hub, make):
    hub.faults.add(Fault("lost_upload", times=None))
    with pytest.raises(RemoteError, match="hf://org/cards"):
        publish(make(), URL, **ABOUT)
    assert all(one.tags == () for one in revisions(URL))


def test_a_commit_under_a_wrong_name_is_noticed(hub, make):
    hub.faults.add(Fault("wrong_commit"))
    with pytest.raises(RemoteError, match="hf://org/cards"):
        publish(make(), URL, **ABOUT)
    assert publish(make(), URL, **ABOUT).revision == revisions(URL)[0].id  # it was there after all


def test_a_repository_of_a_hundred_thousand_files_is_not_listed(hub, make, store):
    publish(make(), URL, **ABOUT)
    hub.faults.add(Fault("crowded", times=None))
    before = len(hub.requests)
    assert store.load(pull(URL, store=store)) == make()
    assert not [one for one in hub.requests[before:] if "/tree/" in one.path]


def test_a_slow_server_is_waited_for(hub, make, store):
    hub.faults.add(Fault("slow", seconds=0.2, times=5))
    publish(make(), URL, **ABOUT)
    assert store.load(pull(URL, store=store)) == make()
