"""Each fault does what it says to huggingface_hub's own client."""

import hashlib
import time
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi, constants
from huggingface_hub.errors import HfHubHTTPError

from adapterkit.testing.hub import KINDS, Fault, Hub

httpx2 = pytest.importorskip("httpx2")  # what huggingface_hub 2 speaks HTTP with
BOTH = pytest.mark.parametrize("xet", [True, False], ids=["xet", "lfs"])
WEIGHTS = bytes(range(256)) * 400
CONFIG = b"{}" * 100
FILES = {"config.json": CONFIG, "adapter.safetensors": WEIGHTS}


@pytest.fixture
def xet():
    return False


@pytest.fixture
def hub(xet, monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", not xet)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    with Hub(xet=xet) as made:
        made.put("org/name", FILES, title="First")
        yield made


@pytest.fixture
def api(hub):
    return HfApi(endpoint=hub.url, token=hub.token)


@pytest.fixture
def fetch(api, tmp_path):
    def download(name):
        return Path(api.hf_hub_download("org/name", name, cache_dir=tmp_path / "cache")).read_bytes()

    return download


def commit(api, files, **options):
    operations = [CommitOperationAdd(path, content) for path, content in files.items()]
    return api.create_commit("org/name", operations, commit_message="Second", **options)


def titles(hub):
    return [one.title for one in hub.repository("org/name").commits()]


def test_somebody_else_commits_just_before(hub, api):
    parent = api.model_info("org/name").sha
    fault = hub.faults.add(Fault("stale_parent"))
    with pytest.raises(HfHubHTTPError, match="A commit has happened since") as caught:
        commit(api, {"x": b"1"}, parent_commit=parent)
    assert caught.value.response.status_code == 412
    assert titles(hub)[0] == "Somebody else's commit"
    assert fault.struck == 1
    commit(api, {"x": b"1"}, parent_commit=api.model_info("org/name").sha)
    assert titles(hub)[0] == "Second"


@pytest.mark.parametrize("status", [500, 503])
def test_the_hub_is_broken_for_a_while(hub, api, status):
    hub.faults.add(Fault("error", status=status, times=2))
    for _ in range(2):
        with pytest.raises(HfHubHTTPError, match="Something broke") as caught:
            api.model_info("org/name")
        assert caught.value.response.status_code == status
    assert api.model_info("org/name")


def test_an_error_of_a_commit_commits_nothing(hub, api):
    hub.faults.add(Fault("error", path="/commit/"))
    with pytest.raises(HfHubHTTPError):
        commit(api, {"x": b"1"})
    assert titles(hub) == ["First", "initial commit"]


def test_too_many_requests(hub, api, fetch):
    hub.faults.add(Fault("rate_limited", seconds=7))
    with pytest.raises(HfHubHTTPError) as caught:
        api.model_info("org/name")
    assert caught.value.response.status_code == 429
    assert caught.value.response.headers["Retry-After"] == "7"
    hub.faults.add(Fault("rate_limited", seconds=0, path="config.json$", method="GET"))
    assert fetch("config.json") == CONFIG  # the client has waited
    assert 429 in [seen.status for seen in hub.requests[1:]]


def test_a_slow_answer(hub, api):
    hub.faults.add(Fault("slow", seconds=0.4))
    started = time.monotonic()
    assert api.model_info("org/name")
    assert time.monotonic() - started >= 0.4
    hub.faults.add(Fault("slow", seconds=60))
    with pytest.raises(httpx2.ReadTimeout):
        api.model_info("org/name", timeout=0.2)


def test_a_body_that_trickles(hub):
    hub.faults.add(Fault("trickle", seconds=0.3))
    started = time.monotonic()
    assert httpx2.get(f"{hub.url}/org/name/resolve/main/config.json").content == CONFIG
    assert time.monotonic() - started >= 0.3


def test_a_hub_that_stops_waits_for_no_slow_answer():
    with Hub() as hub:
        hub.create("org/name")
        hub.faults.add(Fault("slow", seconds=600))
        started = time.monotonic()
        with pytest.raises(httpx2.ReadTimeout):
            HfApi(endpoint=hub.url).model_info("org/name", timeout=0.2)
    assert time.monotonic() - started < 60


def test_a_connection_that_closes_before_anything_is_done(hub, api):
    hub.faults.add(Fault("hang_up", path="/commit/"))
    with pytest.raises(httpx2.RemoteProtocolError):
        commit(api, {"x": b"1"})
    assert titles(hub) == ["First", "initial commit"]
    assert hub.requests[-1].status is None


def test_a_commit_whose_answer_is_lost(hub, api):
    hub.faults.add(Fault("lost_answer"))
    with pytest.raises(httpx2.RemoteProtocolError):
        commit(api, {"x": b"1"})
    assert titles(hub) == ["Second", "First", "initial commit"]


@BOTH
@pytest.mark.parametrize("name", FILES)
def test_a_body_that_is_cut_is_asked_for_again(hub, fetch, name):
    fault = hub.faults.add(Fault("cut", path=name))
    assert fetch(name) == FILES[name]
    by_xet = bool(hub.cas) and name.endswith(".safetensors")
    assert fault.struck == (0 if by_xet else 1)
    assert [seen.method for seen in hub.requests if seen.status == 200].count("GET") == (1 if by_xet else 2)


def test_any_body_can_be_cut(hub):
    hub.faults.add(Fault("cut", path="/tree/"))
    url = f"{hub.url}/api/models/org/name/tree/main"
    with pytest.raises(httpx2.RemoteProtocolError, match="without sending complete"):
        httpx2.get(url)
    assert len(httpx2.get(url).json()) == 3


@BOTH
@pytest.mark.parametrize("name", FILES)
def test_wrong_bytes_are_as_many_but_others(hub, fetch, name):
    fault = hub.faults.add(Fault("wrong_bytes", path=name))
    got = fetch(name)
    assert fault.struck == 1
    assert len(got) == len(FILES[name])
    assert all(one != other for one, other in zip(got, FILES[name], strict=True))


@BOTH
def test_wrong_bytes_reach_a_snapshot(hub, api, tmp_path):
    hub.faults.add(Fault("wrong_bytes", path="adapter"))
    folder = Path(api.snapshot_download("org/name", cache_dir=tmp_path / "cache"))
    assert (folder / "config.json").read_bytes() == CONFIG
    assert (folder / "adapter.safetensors").read_bytes() == bytes(byte ^ 1 for byte in WEIGHTS)


@pytest.mark.parametrize("xet", [True])
def test_wrong_bytes_reach_a_client_that_has_a_xet_token_already(hub, fetch):
    hub.put("org/name", {"another.safetensors": WEIGHTS[:5000]})
    assert fetch("adapter.safetensors") == WEIGHTS
    hub.faults.add(Fault("wrong_bytes", path="another"))
    assert fetch("another.safetensors") == bytes(byte ^ 1 for byte in WEIGHTS[:5000])


@BOTH
@pytest.mark.parametrize("name", FILES)
def test_a_redirect_to_another_host_gives_other_bytes_and_gets_no_token(hub, api, fetch, name):
    hub.faults.add(Fault("redirected", path=name, times=None))
    got = fetch(name)
    assert got == bytes(len(FILES[name]))
    strange = [seen for seen in hub.requests if seen.place == "elsewhere"]
    assert strange
    assert not any(seen.authorized for seen in strange)


def test_a_crowd_of_files(hub, api):
    hub.faults.add(Fault("crowded", times=None))
    assert len(api.model_info("org/name").siblings) == 100_003
    assert len(api.list_repo_files("org/name")) == 100_003


def test_a_body_without_an_end(hub, fetch):
    hub.faults.add(Fault("endless", path="config.json"))
    with pytest.raises(OSError, match=f"should be of size {len(CONFIG)} but has size {1 << 26}"):
        fetch("config.json")


def test_a_client_may_leave_an_endless_body(hub):
    hub.faults.add(Fault("endless", path="config.json"))
    with httpx2.stream("GET", f"{hub.url}/org/name/resolve/main/config.json") as answer:
        assert len(next(answer.iter_bytes(10))) == 10
    assert httpx2.get(f"{hub.url}/org/name/resolve/main/config.json").content == CONFIG


def test_a_length_that_is_a_lie(hub):
    url = f"{hub.url}/org/name/resolve/main/config.json"
    hub.faults.add(Fault("lying_length", by=10))
    with pytest.raises(httpx2.RemoteProtocolError, match="without sending complete"):
        httpx2.get(url)
    hub.faults.add(Fault("lying_length", by=-10))
    assert httpx2.get(url).content == CONFIG[:-10]
    assert httpx2.get(url).content == CONFIG


@pytest.mark.parametrize(("name", "header"), [("config.json", "ETag"), ("adapter.safetensors", "X-Linked-Etag")])
def test_an_etag_that_is_a_lie(hub, name, header):
    url = f"{hub.url}/org/name/resolve/main/{name}"
    true = httpx2.head(url).headers[header]
    hub.faults.add(Fault("lying_etag"))
    lie = httpx2.head(url).headers[header]
    assert lie != true
    assert len(lie) == len(true)
    assert httpx2.head(url).headers[header] == true


def test_a_size_that_is_a_lie(hub, api):
    url = f"{hub.url}/org/name/resolve/main/adapter.safetensors"
    hub.faults.add(Fault("lying_size", by=-1))
    assert httpx2.head(url).headers["X-Linked-Size"] == str(len(WEIGHTS) - 1)


def test_a_commit_that_is_named_wrongly(hub, api):
    hub.faults.add(Fault("wrong_commit"))
    made = commit(api, {"x": b"1"})
    assert made.oid != hub.repository("org/name").resolve().sha
    assert len(made.oid) == 40
    hub.faults.add(Fault("wrong_commit", path="/models/org/name$", method="GET"))
    assert api.model_info("org/name").sha == made.oid


@BOTH
def test_an_upload_that_is_confirmed_and_lost(hub, api, fetch):
    hub.faults.add(Fault("lost_upload"))
    commit(api, {"new.safetensors": b"new"})
    assert hub.repository("org/name").files()["new.safetensors"] is None
    (entry,) = api.get_paths_info("org/name", ["new.safetensors"])
    assert entry.lfs.sha256 == hashlib.sha256(b"new").hexdigest()
    with pytest.raises(HfHubHTTPError, match="404"):
        fetch("new.safetensors")


@BOTH
def test_a_lost_upload_can_be_sent_again(hub, api, fetch):
    hub.faults.add(Fault("lost_upload"))
    commit(api, {"new.safetensors": b"new"})
    commit(api, {"again.safetensors": b"new"})
    assert fetch("new.safetensors") == b"new"


def test_a_fault_strikes_as_often_as_it_says(hub, api):
    other = hub.faults.add(Fault("error", path="/nowhere/", times=None))
    fault = hub.faults.add(Fault("error", times=None))
    for _ in range(3):
        with pytest.raises(HfHubHTTPError):
            api.model_info("org/name")
    assert (fault.struck, other.struck) == (3, 0)
    hub.faults.clear()
    assert api.model_info("org/name")


def test_several_faults_meet_in_one_request(hub, api):
    parent = api.model_info("org/name").sha
    hub.faults.add(Fault("stale_parent"))
    hub.faults.add(Fault("lost_answer"))
    with pytest.raises(httpx2.RemoteProtocolError):
        commit(api, {"x": b"1"}, parent_commit=parent)
    assert titles(hub)[0] == "Somebody else's commit"


def test_a_fault_that_does_not_exist():
    with pytest.raises(ValueError, match="there is no fault 'stale-parent': did you mean 'stale_parent'"):
        Fault("stale-parent")


def test_every_kind_says_what_it_does():
    assert all(kind.act.__doc__ for kind in KINDS.values())
