"""Other places than the Hub have the same versions, by the same calls."""

import uuid

import pytest

from adapterkit import ConflictError, RemoteError, UnknownNameError, publish, pull
from adapterkit.publishing import delete, revisions, rollback, tag, untag
from tests.publish.conftest import ABOUT


@pytest.fixture(params=["file", "memory"])
def url(request, tmp_path):
    return f"file://{tmp_path}/remote/cards" if request.param == "file" else f"memory://{uuid.uuid4()}/cards"


def test_a_version_s_whole_life(url, make, store):
    with pytest.raises(UnknownNameError):
        pull(url, store=store)
    one = publish(make(seed=1), url, **ABOUT)
    two = publish(make(seed=2), url, **{**ABOUT, "tag": "v2"}, message="better")
    assert [(each.id, each.tags, each.parent) for each in revisions(url)] == [
        (two.revision, ("v2",), one.revision),
        (one.revision, ("v1",), ""),
    ]
    for name, seed in {"v1": 1, "v2": 2, one.revision: 1, two.revision: 2}.items():
        assert store.load(pull(f"{url}@{name}", store=store)) == make(seed=seed)
    assert not publish(make(seed=2), url, **{**ABOUT, "tag": "v2"}).is_new
    with pytest.raises(ConflictError):
        publish(make(seed=3), url, **ABOUT)
    assert tag(f"{url}@v1", "first") == one.revision
    untag(f"{url}@first")
    rollback(f"{url}@v1")
    assert store.load(pull(url, store=store)) == make(seed=1)
    delete(url)
    with pytest.raises(UnknownNameError):
        revisions(url)


def test_what_was_changed_there_is_refused(make, store, tmp_path):
    url = f"file://{tmp_path}/remote/cards"
    made = publish(make(), url, **ABOUT)
    (path,) = (tmp_path / "remote").rglob("adapter_model.safetensors")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    with pytest.raises((RemoteError, ValueError), match="cards"):
        pull(f"{url}@{made.tag}", store=store)
    assert store.versions() == []
