"""Publishing on the Hub and pulling from it, through the unmodified client over HTTP."""

import threading
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from adapterkit import (
    Adapter,
    ArtifactError,
    ConfigError,
    ConflictError,
    PublishError,
    Registry,
    RemoteError,
    UnknownNameError,
    hookimpl,
    publish,
    pull,
)
from adapterkit.publishing import adapters as publishing_adapters
from adapterkit.publishing import delete, revisions, rollback, tag, untag
from adapterkit.testing.hub import Fault
from tests.publish.conftest import ABOUT, EVALUATION, started

URL = "hf://org/cards"


def test_what_is_pulled_is_what_was_published(either_hub, make, store):
    made = publish(make(), URL, **ABOUT)
    assert made.is_new
    version = pull(f"{URL}@v1", store=store)
    assert (version.name, version.number) == ("org--cards", 1)
    assert version.origin == f"{URL}@{made.revision}"
    assert version.digest == make().digest == made.digest
    loaded = store.load(version)
    assert loaded == make()
    assert loaded.manifest.evaluation == EVALUATION


def test_the_base_is_called_in_the_files_as_others_find_it(either_hub, make, store):
    publish(make(), URL, **ABOUT, base_revision="5" * 40)
    base = store.load(pull(URL, store=store)).manifest.base
    assert (base.name, base.revision) == ("org/tiny", "5" * 40)
    assert base.fingerprint == make().manifest.base.fingerprint


def test_versions_are_commits_with_tags(either_hub, make, store):
    one = publish(make(seed=1), URL, **ABOUT)
    two = publish(make(seed=2), URL, **{**ABOUT, "tag": "v2"}, message="better")
    found = revisions(URL)
    assert [(each.id, each.tags, each.parent == one.revision) for each in found] == [
        (two.revision, ("v2",), True),
        (one.revision, ("v1",), False),
    ]
    assert found[0].message == "better"
    for name, seed in {"v1": 1, "v2": 2, one.revision: 1, two.revision: 2, "main": 2}.items():
        assert store.load(pull(f"{URL}@{name}", store=store)) == make(seed=seed)
    assert len(store.versions("org--cards")) == 2  # the same commit is not brought in again


def test_a_new_repository_is_private_unless_it_is_asked_otherwise(either_hub, make):
    publish(make(), URL, **ABOUT)
    publish(make(), "hf://org/open", **ABOUT, private=False)
    assert [either_hub.repository(name).private for name in ("org/cards", "org/open")] == [True, False]


def test_rolling_back_publishes_the_earlier_version_once_more(either_hub, make, store):
    publish(make(seed=1), URL, **ABOUT)
    publish(make(seed=2), URL, **{**ABOUT, "tag": "v2"})
    back = rollback(f"{URL}@v1")
    assert back.is_new
    assert store.load(pull(URL, store=store)) == make(seed=1)
    assert len(revisions(URL)) == 3
    assert not rollback(f"{URL}@v1").is_new  # it is there now


def test_names_are_given_and_taken(either_hub, make):
    made = publish(make(), URL, **{**ABOUT, "tag": ""})
    assert tag(URL, "best") == made.revision
    assert revisions(URL)[0].tags == ("best",)
    untag(f"{URL}@best")
    assert revisions(URL)[0].tags == ()
    with pytest.raises(UnknownNameError, match="best"):
        untag(f"{URL}@best")


def test_deleting_takes_everything(either_hub, make):
    publish(make(), URL, **ABOUT)
    delete(URL)
    assert not either_hub.repositories
    with pytest.raises(UnknownNameError, match="you may not see it"):
        revisions(URL)
    with pytest.raises(UnknownNameError, match="none that you may delete"):
        delete(URL)
    with pytest.raises(UnknownNameError, match="you may not see it"):
        pull(URL)


def test_the_same_again_changes_nothing(hub, make):
    one = publish(make(), URL, **ABOUT)
    again = publish(make(), URL, **ABOUT)
    assert (again.is_new, again.revision) == (False, one.revision)
    assert len(revisions(URL)) == 1


def test_a_tag_never_moves(hub, make):
    publish(make(seed=1), URL, **ABOUT)
    with pytest.raises(ConflictError, match=r"hf://org/cards@v1 is another version already.*Nothing was published"):
        publish(make(seed=2), URL, **ABOUT)
    assert len(revisions(URL)) == 1
    publish(make(seed=2), URL, **{**ABOUT, "tag": "v2"})
    with pytest.raises(ConflictError, match="keeps its name"):
        tag(f"{URL}@v2", "v1")


def test_what_lies_beside_the_adapter_stays(hub, make, store):
    publish(make(seed=1), URL, **ABOUT)
    hub.put("org/cards", {"LICENSE": b"Apache", "model.sig": b"{}"})
    publish(make(seed=2), URL, **{**ABOUT, "tag": "v2"})
    names = set(hub.repository("org/cards").files())
    assert "LICENSE" in names
    assert "model.sig" not in names  # it was another version's


def test_all_that_is_missing_is_said_at_once_and_nothing_is_sent(hub, make):
    with pytest.raises(PublishError) as refused:
        publish(make(evaluation={}), URL)
    said = str(refused.value)
    assert len(refused.value.problems) == 3
    assert "evaluat" in said
    assert "licen" in said
    assert "base" in said
    assert not hub.requests


def test_what_is_told_to_be_missing_may_be(hub, make, store):
    publish(make(evaluation={}), URL, base_model="org/tiny", unevaluated=True, unlicensed=True)
    assert store.load(pull(URL, store=store)) == make()


def test_the_licence_of_a_base_on_the_hub_is_found(hub, make):
    hub.put("org/tiny", {"README.md": b"---\nlicense: llama3\n---\n"})
    publish(make(), URL, base_model="org/tiny")
    assert 'license: "llama3"' in hub.repository("org/cards").files()["README.md"].decode()


@pytest.mark.parametrize(
    "secret",
    ["hf_" + "a" * 34, "sk-ant-api03-" + "b" * 90, "AKIAIOSFODNN7EXAMPLE", "-----BEGIN RSA PRIVATE KEY-----"],
)
def test_a_secret_is_not_published(hub, make, secret):
    with pytest.raises(PublishError, match="looks like a secret") as refused:
        publish(make(), URL, **ABOUT, description=f"Trained by us, {secret}.")
    assert secret not in str(refused.value)
    assert not hub.repositories


@pytest.mark.parametrize(
    "url", ["hf://cards", "hf://a/b/c", "cards", "hf://", "https://user:pw@host/x", "hf://org/../x", "hf:///org/x"]
)
def test_what_is_no_address_is_refused(hub, make, url):
    with pytest.raises((RemoteError, ValueError)) as refused:
        publish(make(), url, **ABOUT)
    assert "pw@" not in str(refused.value)
    assert not hub.repositories


def test_an_unknown_scheme_lists_those_that_are_known(make):
    with pytest.raises(UnknownNameError, match="hf"):
        publish(make(), "ftpx://host/cards", **ABOUT)


@pytest.mark.parametrize("name", ["a b", "../x", "main", "0" * 40, "x" * 200])
def test_a_tag_that_is_no_name_is_refused(hub, make, name):
    for call in (lambda: publish(make(), URL, **{**ABOUT, "tag": name}), lambda: tag(URL, name)):
        with pytest.raises(ConfigError, match="tag"):
            call()
    assert not hub.repositories


def test_an_address_with_a_version_is_no_place_to_publish_to(hub, make):
    with pytest.raises(ConfigError, match="tag='v3'"):
        publish(make(), f"{URL}@v3", **ABOUT)


def test_folders_and_references_are_published_too(hub, make, store, tmp_path):
    make(seed=1).save(tmp_path / "cards")
    store.add(make(seed=2), "tone")
    assert publish(str(tmp_path / "cards"), URL, **ABOUT).digest == make(seed=1).digest
    assert publish("tone@1", URL, **{**ABOUT, "tag": "v2"}, store=store).digest == make(seed=2).digest


def test_an_adapter_publishes_itself(hub, make):
    assert make().publish(URL, **ABOUT).is_new


def test_a_plugin_may_veto(hub, make):
    class Gate:
        @hookimpl
        def adapterkit_before_publish(self, adapter, url, card):
            raise ValueError(f"not {adapter.method} to {url}: {len(card) > 100}")

    class Listener:
        def __init__(self):
            self.told = []

        @hookimpl
        def adapterkit_published(self, adapter, url, revision):
            self.told.append((adapter.digest, url, revision))

    registry, listener = Registry(), Listener()
    registry.add(listener)
    made = publish(make(), URL, **ABOUT, registry=registry)
    assert listener.told == [(make().digest, URL, made.revision)]
    registry.add(Gate())
    with pytest.raises(ValueError, match="not lora to hf://org/cards: True"):
        publish(make(seed=3), URL, **{**ABOUT, "tag": "v3"}, registry=registry)
    assert len(revisions(URL)) == 1


def test_the_base_loads_an_address(hub, make, tiny):
    publish(make(), URL, **ABOUT)
    loaded = tiny.load(f"{URL}@v1")
    assert isinstance(loaded, Adapter)
    assert loaded == make()
    tiny.unload(loaded)


def test_a_peft_repository_is_pulled_and_gets_a_manifest(hub, make, store, tmp_path):
    make().save(tmp_path / "cards")
    names = ("adapter_config.json", "adapter_model.safetensors")
    hub.put("org/stock", {name: (tmp_path / "cards" / name).read_bytes() for name in names})
    pulled = store.load(pull("hf://org/stock", store=store))
    assert dict(pulled.tensors).keys() == dict(make().tensors).keys()


def test_the_same_adapter_from_elsewhere_is_a_version_of_its_own_and_no_blob_more(hub, make, store):
    store.add(make(), "cards")
    publish("cards@1", URL, **ABOUT, store=store)
    blobs = store.verify().blobs
    pulled = [pull(URL, name="cards", store=store) for _ in range(2)]
    assert [str(one) for one in pulled] == ["cards@2", "cards@2"]  # its manifest calls the base as others find it
    publish("cards@2", "hf://org/again", **{**ABOUT, "license": "mit"}, store=store)
    again = pull("hf://org/again", name="cards", store=store)
    assert (str(again), again.digest, again.origin[:14]) == ("cards@3", pulled[0].digest, "hf://org/again")
    assert store.verify().blobs <= blobs + 2


def test_a_repository_that_was_made_and_left_empty_is_gone_on_with(hub, make):
    hub.create("org/cards", private=True)
    assert revisions(URL) == []
    made = publish(make(), URL, **ABOUT)
    assert [one.id for one in revisions(URL)] == [made.revision]


def test_a_repository_without_an_adapter_is_refused(hub, store):
    hub.put("org/cards", {"README.md": b"# nothing"})
    with pytest.raises(ArtifactError, match="holds no adapter"):
        pull(URL, store=store)
    assert store.versions() == []


def test_a_gated_repository_and_one_that_may_not_be_seen_say_what_to_do(hub, make, monkeypatch):
    publish(make(), URL, **ABOUT, private=False)
    hub.repository("org/cards").gated = "manual"
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(RemoteError, match="is gated: ask for access"):
        pull(URL)
    hub.repository("org/cards").private = True
    with pytest.raises(UnknownNameError, match="you may not see it: is HF_TOKEN set"):
        pull(URL)
    monkeypatch.setenv("HF_TOKEN", "hf_wrongwrongwrong")
    with pytest.raises(RemoteError, match="does not let you"):
        pull(URL)


CANARY = "hf_canaryCANARYcanaryCANARYcanary1234"


class Echo(BaseHTTPRequestHandler):
    """A server that says the token back."""

    def do_GET(self):
        self.send_response(400)
        self.send_header("X-Error-Message", f"no good: {self.headers['Authorization']}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_POST = do_GET  # noqa: N815

    def log_message(self, *_):
        pass


def test_a_token_is_in_no_error_no_log_and_no_file(hub, make, store, monkeypatch, caplog, tmp_path):
    monkeypatch.setenv("HF_TOKEN", CANARY)
    caplog.set_level("INFO")  # a trace of the wire itself, at DEBUG, shows whatever a server says
    for name in ("adapterkit", "huggingface_hub"):
        caplog.set_level("DEBUG", name)
    errors = []
    with pytest.raises((RemoteError, UnknownNameError)) as refused:
        publish(make(), URL, **ABOUT)
    errors.append(refused.value)
    hub.token = CANARY  # now it may write
    publish(make(), URL, **ABOUT)
    pull(URL, store=store)
    echo = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=echo.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{echo.server_port}")
    for call in (lambda: pull(URL, store=store), lambda: publish(make(seed=2), URL, **ABOUT), lambda: revisions(URL)):
        with pytest.raises(RemoteError, match="no good: Bearer <token>") as refused:
            call()
        errors.append(refused.value)
    echo.shutdown()
    assert CANARY not in "".join(line for one in errors for line in traceback.format_exception(one))
    assert CANARY not in caplog.text
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 3
    assert not [path for path in files if CANARY.encode() in path.read_bytes()]


def test_another_server_of_the_same_name_is_not_taken_for_the_first(hub, make, store):
    publish(make(seed=1), URL, **ABOUT)
    first = pull(f"{URL}@v1", store=store)
    before = len(hub.requests)
    assert pull(f"{URL}@v1", store=store) == first
    assert not [one for one in hub.requests[before:] if "safetensors" in one.path and one.method == "GET"]
    hub.faults.add(Fault("wrong_bytes", path="adapterkit.json", times=None))  # as a mirror may hold under this commit
    with pytest.raises(ArtifactError, match=r"adapterkit\.json"):
        pull(f"{URL}@v1", store=store)


def test_a_veto_holds_for_models_and_for_going_back(hub, make, tiny, tmp_path):
    class Gate:
        @hookimpl
        def adapterkit_before_publish(self, adapter, url):
            raise ValueError(f"not {adapter.method if adapter else 'a model'} to {url}")

    publish(make(), URL, **ABOUT)
    registry = Registry()
    registry.add(Gate())
    with pytest.raises(ValueError, match="not lora to hf://org/cards"):
        rollback(f"{URL}@v1", registry=registry)
    whole = tiny.bake(make(), tmp_path / "whole", min_survived=0).folder
    with pytest.raises(ValueError, match="not a model to hf://org/whole"):
        publish(whole, "hf://org/whole", **ABOUT, registry=registry)
    assert set(hub.repositories) == {"org/cards"}


@pytest.mark.parametrize("where", ["message", "description", "limits"])
def test_a_secret_of_this_process_is_not_published_wherever_it_is_said(hub, make, monkeypatch, where):
    monkeypatch.setenv("TEAM_API_KEY", "correct horse battery")
    with pytest.raises(PublishError, match=r"the value of \$TEAM_API_KEY") as refused:
        publish(make(), URL, **ABOUT, **{where: "it is correct horse battery"})
    assert "battery" not in str(refused.value)
    assert not hub.repositories


def test_an_address_as_a_browser_shows_it_says_how_it_is_written(hub):
    with pytest.raises(ValueError, match="hf://org/cards"):
        pull("https://huggingface.co/org/cards/tree/main")


def test_what_is_pulled_stays_apart_from_what_was_named(hub, make, store, tiny):
    publish(make(seed=1), URL, **ABOUT)
    store.add(make(seed=2), "cards")
    tiny.load(f"{URL}@v1")
    assert store.load("cards") == make(seed=2)
    assert store.load("org--cards") == make(seed=1)


def test_a_signature_that_does_not_go_along_is_said(hub, make, tmp_path, caplog):
    folder = make().save(tmp_path / "cards")
    (folder / "model.sig").write_text("{}")
    publish(folder, URL, **ABOUT)
    assert "does not go along" in caplog.text


def test_what_is_no_adapter_s_repository_is_left_alone(hub, make):
    hub.put("org/llama", {"config.json": b"{}", "README.md": b"# Llama"})
    before = hub.repository("org/llama").files()
    with pytest.raises(ConflictError, match=r"holds something else, as its config\.json says"):
        publish(make(), "hf://org/llama", **ABOUT)
    assert hub.repository("org/llama").files() == before


def test_a_repository_with_a_card_and_a_licence_alone_is_taken(hub, make):
    hub.put("org/cards", {"README.md": b"# soon", "LICENSE": b"Apache"})
    assert publish(make(), URL, **ABOUT).is_new


def test_another_card_is_the_same_version_under_its_tag_and_a_new_one_without(hub, make):
    one = publish(make(), URL, **ABOUT)
    again = publish(make(), URL, **ABOUT, description="in other words")
    assert (again.is_new, again.revision) == (False, one.revision)
    assert publish(make(), URL, **{**ABOUT, "tag": ""}, description="in other words").is_new


def test_tags_that_are_not_on_the_main_branch_are_known_too(hub, make):
    made = publish(make(), URL, **{**ABOUT, "tag": ""})
    hub.repository("org/cards").add_ref("branch", "side", "main")
    hub.put("org/cards", {"x": b"x"}, branch="side")
    hub.repository("org/cards").add_ref("tag", "aside", "side")
    with pytest.raises(UnknownNameError, match="aside"):
        pull(f"{URL}@asside")
    untag(f"{URL}@aside")
    assert revisions(URL)[0].id == made.revision


def test_a_card_that_the_hub_refuses_makes_no_repository(hub, make, monkeypatch):
    monkeypatch.setattr(publishing_adapters, "render", lambda *_: "---\nlicense: [\n---\n")
    with pytest.raises(PublishError, match="refuses the card"):
        publish(make(), URL, **ABOUT)
    assert not hub.repositories


def test_a_repository_of_peft_s_is_fetched_once(hub, make, store, tmp_path):
    make().save(tmp_path / "cards")
    names = ("adapter_config.json", "adapter_model.safetensors")
    hub.put("org/stock", {name: (tmp_path / "cards" / name).read_bytes() for name in names})
    first = pull("hf://org/stock", store=store)
    before = len(hub.requests)
    assert pull("hf://org/stock", store=store) == first
    assert not [one for one in hub.requests[before:] if "safetensors" in one.path and one.method == "GET"]


def test_xet_is_used_only_where_its_storage_is_allowed(monkeypatch, make, store):
    with started(monkeypatch, xet=True) as hub:
        publish(make(), URL, **ABOUT)
        monkeypatch.setenv("ADAPTERKIT_HUB_HOSTS", hub.storage_url.removeprefix("http://"))
        before = len(hub.requests)
        assert store.load(pull(URL, store=store)) == make()
        assert not [one for one in hub.requests[before:] if "xet" in one.path]


def test_a_limit_says_how_long_in_the_hub_s_own_header_too(hub, make, monkeypatch):
    waits = []
    monkeypatch.setattr("time.sleep", waits.append)
    hub.faults.add(Fault("rate_limited", seconds=7, times=1, path="/revision/"))
    publish(make(), URL, **ABOUT)
    assert 7.0 in waits
