"""A kind of place of somebody's own is a plugin, found by the scheme of its URLs."""

import pytest

from adapterkit import Adapter, BrokenPluginError, PluginClashError, UnknownNameError
from adapterkit.publishing import publish, pull, revisions
from adapterkit.registry import Registry, default_registry
from adapterkit.store import Store
from tests.support import make_adapter

SHELF = """
from adapterkit import Remote, hookimpl
from adapterkit_fsspec.repository import FsspecRepository

@hookimpl
def adapterkit_remotes():
    yield Remote(name="shelf", open=lambda url: FsspecRepository(url.replace("shelf://", "file://{folder}/")), summary="a shelf")
"""


@pytest.fixture
def registry(tmp_path):
    file = tmp_path / "shelf.py"
    file.write_text(SHELF.replace("{folder}", str(tmp_path)))
    made = Registry()
    made.add(file)
    return made


def test_a_scheme_of_one_s_own_is_published_to_and_pulled_from(registry, llama, tmp_path):
    adapter = make_adapter(llama, rank=2)
    said = {"unevaluated": True, "unlicensed": True, "base_model": "org/base"}
    published = publish(adapter, "shelf://cards", tag="v1", registry=registry, **said)
    assert [one.id for one in revisions("shelf://cards", registry=registry)] == [published.revision]
    store = Store(tmp_path / "store", registry=registry)
    version = pull("shelf://cards@v1", store=store, registry=registry)
    assert store.load(version) == adapter
    assert version.origin == f"shelf://cards@{published.revision}"
    assert Adapter.load(tmp_path / "cards" / "versions" / published.revision) == adapter


def test_remotes_are_listed_by_scheme(registry):
    named = [one.name for one in registry.remotes()]
    assert named == sorted(named)
    assert {"shelf", "file", "memory", "s3", "gs", "az"} <= set(named)


def test_an_unknown_scheme_is_refused_with_those_that_are_known():
    with pytest.raises(UnknownNameError, match=r"no remote 'memroy'; did you mean 'memory'\?.*file"):
        default_registry().remote("memroy")


def test_two_plugins_of_one_scheme_clash(registry, tmp_path):
    other = tmp_path / "other.py"
    other.write_text((tmp_path / "shelf.py").read_text())
    registry.add(other)
    with pytest.raises(PluginClashError, match="'shelf' is provided by"):
        registry.remote("shelf")


def test_a_record_that_is_none_is_refused(tmp_path):
    file = tmp_path / "wrong.py"
    file.write_text("from adapterkit import hookimpl\n@hookimpl\ndef adapterkit_remotes():\n    yield 'shelf'\n")
    with pytest.raises(BrokenPluginError):
        Registry([]).add(file)
