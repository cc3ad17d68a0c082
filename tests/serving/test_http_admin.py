"""Changing what is served over HTTP: adapters, aliases, sources, and vLLM's two routes."""

import json
import os

import pytest

from adapterkit import Blend, Store
from adapterkit.errors import ConfigError
from adapterkit.serving.http import Settings
from adapterkit.serving.http.errors import RefusalError
from adapterkit.serving.http.sources import allowed, check_patterns
from tests.support import make_adapter

from .http_server import ADMIN, KEYS, USER, as_who, client_of, engine_of

ASKED = {"prompt": "The card", "max_tokens": 6, "temperature": 0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, example_base):
    """A folder that is allowed, with an adapter in it."""
    folder = tmp_path_factory.mktemp("allowed")
    make_adapter(example_base, seed=3).save(folder / "good")
    return folder


@pytest.fixture(scope="module")
def outside(tmp_path_factory, example_base):
    """An adapter in a folder that is not allowed."""
    folder = tmp_path_factory.mktemp("outside")
    make_adapter(example_base, seed=4).save(folder / "other")
    return folder / "other"


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def engine(example_base, store):
    with engine_of(example_base, store=store, max_length=256) as engine:
        yield engine


@pytest.fixture
def client(engine, folder):
    with client_of(engine, ADMIN, keys=KEYS, allow_sources=(str(folder), "hf://org/*")) as client:
        yield client


def text_of(client, model):
    response = client.post("/v1/completions", json={**ASKED, "model": model})
    return response.json()["choices"][0]["text"]


def test_an_adapter_is_added_asked_for_and_removed(client, engine, folder, store):
    added = client.post("/v1/adapters", json={"name": "new", "source": str(folder / "good")})
    assert added.status_code == 200
    assert added.json()["digest"] == store.resolve("new").digest
    listed = {one["name"]: one for one in client.get("/v1/adapters").json()["data"]}
    assert set(listed) == {"cards", "tone", "new"}
    assert listed["new"]["versions"] == [1]
    from adapterkit import Text

    assert text_of(client, "new") == engine.generate(Text("The card"), model="new", max_new_tokens=6)
    assert {"device", "host"} & set(
        {one["name"]: one for one in client.get("/v1/adapters").json()["data"]}["new"]["tiers"]
    )
    assert client.delete("/v1/adapters/new").json() == {"name": "new", "object": "adapter", "deleted": True}
    assert client.post("/v1/completions", json={**ASKED, "model": "new"}).status_code == 404
    assert client.delete("/v1/adapters/new").status_code == 404
    assert (folder / "good").is_dir()
    assert store.resolve("new").number == 1  # nothing on disk is deleted
    back = client.post("/v1/adapters", json={"name": "new", "source": "new"})
    assert back.status_code == 200


def test_a_name_in_use_is_replaced_only_when_asked(client, folder):
    asked = {"name": "new", "source": str(folder / "good")}
    assert client.post("/v1/adapters", json=asked).status_code == 200
    assert client.post("/v1/adapters", json=asked).status_code == 409
    assert client.post("/v1/adapters", json={**asked, "replace": True}).status_code == 200


def test_an_alias_moves_and_rolls_back(client, example_base, store):
    for seed in (5, 6):
        store.add(make_adapter(example_base, seed=seed), "mail")
    one, two = text_of(client, "mail@1"), text_of(client, "mail@2")
    assert one != two
    alias = "/v1/adapters/mail/aliases/production"
    moved = client.post(alias, json={"version": 1, "why": "first", "expect": None})
    assert moved.json() == {
        "name": "mail",
        "object": "alias",
        "alias": "production",
        "version": 1,
        "digest": store.resolve("mail@1").digest,
    }
    assert text_of(client, "mail@production") == one
    assert client.post(alias, json={"version": 2, "why": "better"}).status_code == 200
    assert text_of(client, "mail@production") == two
    assert client.post(alias, json={"version": 1, "expect": 1}).status_code == 409  # it points at 2
    assert client.post(alias, json={"version": 7}).status_code == 404
    assert client.post("/v1/adapters/other/aliases/production", json={"version": 1}).status_code == 404
    assert client.post("/v1/adapters/mail/aliases/UPPER", json={"version": 1}).status_code == 400
    assert client.post(f"{alias}/rollback", json={"why": "worse"}).json()["version"] == 1
    assert text_of(client, "mail@production") == one
    assert client.post("/v1/adapters/mail/aliases/nothing/rollback", json={}).status_code == 404
    entry = store.history("mail@production")[-1]
    assert entry.who.startswith("http-")
    assert ADMIN not in str(store.history())


def test_an_adapter_is_pinned_and_let_go(client):
    text_of(client, "cards")
    assert client.post("/v1/adapters/cards/pin").json()["pinned"] is True
    listed = {one["name"]: one for one in client.get("/v1/adapters").json()["data"]}
    assert (listed["cards"]["pinned"], listed["tone"]["pinned"]) == (True, False)
    assert client.post("/v1/adapters/cards/unpin").json()["pinned"] is False
    assert client.post("/v1/adapters/nothing/pin").status_code == 404


def test_what_was_pinned_is_let_go_though_its_name_means_another_now(client, engine, store, example_base):
    first = store.add(make_adapter(example_base, seed=31), "pinned")
    assert client.post("/v1/adapters/pinned/pin").json()["digest"] == first.digest
    store.add(make_adapter(example_base, seed=32), "pinned")
    assert client.post("/v1/adapters/pinned/unpin").status_code == 200
    assert not any(one.pinned for one in engine.residency.held())


def test_where_an_adapter_lies_is_told_to_admins_only(client):
    (mine, *_) = client.get("/v1/adapters").json()["data"]
    (theirs, *_) = client.get("/v1/adapters", headers=as_who(USER)).json()["data"]
    assert "source" in mine
    assert "source" not in theirs


def test_vllms_routes(client, folder):
    load = {"lora_name": "sql", "lora_path": str(folder / "good")}
    response = client.post("/v1/load_lora_adapter", json=load)
    assert (response.status_code, response.text) == (200, "Success: LoRA adapter 'sql' added successfully.")
    again = client.post("/v1/load_lora_adapter", json=load)
    assert again.status_code == 400
    assert "has already been loaded" in again.json()["error"]["message"]
    assert client.post("/v1/load_lora_adapter", json={**load, "load_inplace": True}).status_code == 200
    response = client.post("/v1/unload_lora_adapter", json={"lora_name": "sql"})
    assert (response.status_code, response.text) == (200, "Success: LoRA adapter 'sql' removed successfully.")
    gone = client.post("/v1/unload_lora_adapter", json={"lora_name": "sql"})
    assert (gone.status_code, gone.json()["error"]["type"]) == (404, "NotFoundError")
    assert client.post("/v1/load_lora_adapter", json={"lora_name": "x"}).status_code == 400
    assert client.post("/v1/unload_lora_adapter", json={}).status_code == 400


def test_a_folder_that_is_no_adapter_changes_nothing(client, engine, folder, store):
    (folder / "bad").mkdir(exist_ok=True)
    before = engine.catalogue.listed()
    for source in ("bad", "missing"):
        response = client.post("/v1/adapters", json={"name": "new", "source": str(folder / source)})
        assert response.status_code == 400
    assert engine.catalogue.listed() == before
    assert "new" not in store


def test_a_source_that_is_not_allowed_is_not_read(client, engine, outside, folder, monkeypatch):
    monkeypatch.chdir(outside.parent)
    (folder / "link").unlink(missing_ok=True)
    (folder / "link").symlink_to(outside, target_is_directory=True)
    before = engine.catalogue.listed()
    for source in (
        *(str(outside), f"{folder}/../{outside.parent.name}/other", str(folder / "link"), "other", "./other", "~/x"),
        *(
            "hf://other/x",
            "hf://org/x/y",
            "hf://org",
            "s3://bucket/x",
            f"file://{outside}",
            "cards@1",
            "sha256:00000000",
        ),
        *(f"{folder}-not/x", "", " ", "/", "https://huggingface.co/org/x"),
    ):
        for path, body in [
            ("/v1/adapters", {"name": "new", "source": source}),
            ("/v1/load_lora_adapter", {"lora_name": "new", "lora_path": source}),
        ]:
            response = client.post(path, json=body)
            assert response.status_code in (400, 403), source
    assert engine.catalogue.listed() == before


def test_without_a_list_only_the_store_is_a_source(engine, folder, example_base, store):
    store.add(make_adapter(example_base, seed=7), "kept")
    with client_of(engine, ADMIN, keys=KEYS) as client:
        assert client.post("/v1/adapters", json={"name": "new", "source": str(folder / "good")}).status_code == 403
        assert client.post("/v1/adapters", json={"name": "new", "source": "kept@1"}).status_code == 200


def test_a_blend_may_not_name_folders_outside(folder, outside, example_base):
    inside, beyond = make_adapter(example_base, seed=3), make_adapter(example_base, seed=4)
    mix = Blend({inside: 0.5, beyond: 0.5})
    file = mix.save(folder / "mix.json", {inside: folder / "good", beyond: outside})
    patterns = check_patterns([str(folder)])
    with pytest.raises(RefusalError, match="not allowed"):
        allowed(str(file), patterns, None)
    assert allowed(str(file), check_patterns([str(folder), str(outside.parent)]), None) == os.path.realpath(file)


def test_patterns():
    kept = ("hf://org/*", "s3://bucket/team-*/x")
    assert check_patterns(kept) == kept
    for source in ("hf://org/x", "hf://org/x@v1", "s3://bucket/team-a/x"):
        assert allowed(source, kept, None) == source
    for source in ("hf://org2/x", "hf://org/x/y", "hf://ORG/x", "s3://bucket/team-a/y", "gs://org/x"):
        with pytest.raises(RefusalError):
            allowed(source, kept, None)
    for source in ("hf://org/../x", "hf://user:password@org/x"):
        with pytest.raises(ConfigError):
            allowed(source, kept, None)
    for source in ("/x\x00", "/x\n", "/" + "x" * 2000):
        with pytest.raises(RefusalError) as caught:
            allowed(source, kept, None)
        assert caught.value.status == 400
    with pytest.raises(ConfigError, match="neither a folder"):
        check_patterns(["/does/not/exist"])


def test_settings_that_do_not_fit(engine):
    with pytest.raises(ConfigError):
        Settings.from_environment({}, port=70_000)
    assert json.loads(json.dumps(Settings().allow_sources)) == []
