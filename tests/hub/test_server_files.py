"""Commits, uploads and downloads, as huggingface_hub's own client makes them, through Xet storage and without it."""

import base64
import hashlib
import json
import shutil
import socket
import subprocess
import threading
import urllib.request
from pathlib import Path

import pytest
import torch
from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi, constants
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError
from safetensors.torch import save

from adapterkit.testing.hub import Hub

CARD = b"---\nlicense: mit\n---\n# Hi\n"
WEIGHTS = save({"a": torch.arange(50_000.0), "b": torch.zeros(3, dtype=torch.float16)})
NAMES = ["README.md", "adapter_config.json", "deep/down/adapter_model.safetensors", "more.safetensors"]


@pytest.fixture(params=[True, False], ids=["xet", "lfs"])
def hub(request, monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", not request.param)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    with Hub(xet=request.param) as made:
        yield made


@pytest.fixture
def api(hub):
    made = HfApi(endpoint=hub.url, token=hub.token)
    made.create_repo("org/name", private=True)
    return made


def publish(api, files, **options):
    operations = [CommitOperationAdd(path, content) for path, content in files.items()]
    return api.create_commit("org/name", operations, commit_message="Some files", **options)


def read(folder):
    folder = Path(folder)
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def asked(hub, part):
    return [seen for seen in hub.requests if part in seen.path]


FILES = dict(zip(NAMES, [CARD, b"{}", WEIGHTS, b"more"], strict=True))


def test_what_is_downloaded_is_what_was_uploaded(hub, api, tmp_path):
    made = publish(api, FILES)
    api.create_tag("org/name", tag="v1")
    publish(api, {"README.md": CARD + b"more", "deep/down/adapter_model.safetensors": WEIGHTS[::-1]})
    by_tag = api.snapshot_download("org/name", revision="v1", cache_dir=tmp_path, ignore_patterns=".gitattributes")
    assert read(by_tag) == FILES
    assert Path(by_tag).name == made.oid
    newest = api.snapshot_download("org/name", cache_dir=tmp_path / "anew")
    assert read(newest)["deep/down/adapter_model.safetensors"] == WEIGHTS[::-1]
    for revision in ("v1", made.oid):
        file = api.hf_hub_download("org/name", NAMES[2], revision=revision, cache_dir=tmp_path / f"by-{revision}")
        assert Path(file).read_bytes() == WEIGHTS
    assert hub.repository("org/name").files("v1") == FILES | {
        ".gitattributes": hub.repository("org/name").files()[".gitattributes"]
    }


def test_each_way_is_really_taken(hub, api, tmp_path):
    publish(api, FILES)
    api.snapshot_download("org/name", cache_dir=tmp_path)
    by_xet = bool(hub.cas)
    assert bool(asked(hub, "/xet-write-token/")) == by_xet
    assert bool(asked(hub, "/xet-read-token/")) == by_xet
    assert bool(asked(hub, "/info/lfs/objects/batch")) != by_xet
    assert {seen.method for seen in hub.requests if seen.place == "storage"} == (set() if by_xet else {"GET", "PUT"})


def test_no_token_goes_to_storage(hub, api, tmp_path):
    publish(api, FILES)
    api.snapshot_download("org/name", cache_dir=tmp_path)
    assert not any(seen.authorized for seen in hub.requests if seen.place == "storage")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{hub.storage_url}/org/name/{hashlib.sha256(WEIGHTS).hexdigest()}/x?signature=guessed")
    assert caught.value.code == 403


def test_a_client_without_xet_gets_on_with_a_hub_that_has_it(monkeypatch, tmp_path):
    with Hub(xet=True) as hub:
        api = HfApi(endpoint=hub.url, token=hub.token)
        api.create_repo("org/name")
        for disabled, path in ((True, "one.safetensors"), (False, "two.safetensors")):
            monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", disabled)
            publish(api, {path: path.encode()})
        for disabled in (True, False):
            monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", disabled)
            files = read(api.snapshot_download("org/name", cache_dir=tmp_path / str(disabled)))
            assert (files["one.safetensors"], files["two.safetensors"]) == (b"one.safetensors", b"two.safetensors")


def test_a_client_with_xet_is_told_that_the_hub_has_none(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    with Hub(xet=False) as hub:
        api = HfApi(endpoint=hub.url, token=hub.token)
        api.create_repo("org/name")
        with pytest.raises(Exception, match="404"):
            publish(api, {"one.safetensors": b"one"})
        assert len(hub.repository("org/name").commits()) == 1


def test_a_folder_goes_up_as_one_commit(hub, api, tmp_path):
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    api.upload_folder(repo_id="org/name", folder_path=tmp_path, commit_message="All of it", ignore_patterns="home/**")
    repo = hub.repository("org/name")
    assert [commit.title for commit in repo.commits()] == ["All of it", "initial commit"]
    assert {name: repo.files()[name] for name in NAMES} == FILES


def test_an_unchanged_file_makes_no_commit(hub, api):
    made = publish(api, FILES)
    assert publish(api, FILES).oid == made.oid
    assert len(hub.repository("org/name").commits()) == 2


def test_an_object_that_is_there_is_not_sent_again(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with Hub() as hub:
        api = HfApi(endpoint=hub.url, token=hub.token)
        api.create_repo("org/name")
        publish(api, {"one.safetensors": b"one"})
        publish(api, {"two.safetensors": b"one"})
        assert len([seen for seen in hub.requests if seen.method == "PUT"]) == 1


def test_history_stays(hub, api):
    first = publish(api, {"x": b"1", "gone": b""}, commit_description="Why")
    second = api.create_commit("org/name", [CommitOperationDelete("gone")], commit_message="Less")
    assert api.list_repo_files("org/name") == [".gitattributes", "x"]
    assert "gone" in api.list_repo_files("org/name", revision=first.oid)
    listed = [(commit.commit_id, commit.title, commit.message) for commit in api.list_repo_commits("org/name")]
    assert listed[:2] == [(second.oid, "Less", ""), (first.oid, "Some files", "Why")]
    assert hub.repository("org/name").resolve().parent == first.oid


def test_files_and_folders_are_deleted_and_copied(api):
    publish(api, FILES | {"a/1": b"1", "a/b/2": b"2", "ab": b"3"})
    api.delete_folder("a", "org/name")
    api.create_commit(
        "org/name",
        [CommitOperationCopy(NAMES[2], "copy.safetensors"), CommitOperationCopy("ab", "copy")],
        commit_message="Copies",
    )
    assert set(api.list_repo_files("org/name")) == {".gitattributes", "ab", "copy", "copy.safetensors", *NAMES}
    with pytest.raises(EntryNotFoundError):
        api.delete_file("nowhere", "org/name")
    with pytest.raises(EntryNotFoundError):
        api.delete_folder("nowhere", "org/name")


def test_a_stale_parent_is_refused(hub, api):
    first = publish(api, {"x": b"1"})
    second = publish(api, {"x": b"2"}, parent_commit=first.oid)
    with pytest.raises(HfHubHTTPError, match="A commit has happened since") as caught:
        publish(api, {"x": b"3"}, parent_commit=first.oid)
    assert caught.value.response.status_code == 412
    assert hub.repository("org/name").resolve().sha == second.oid
    publish(api, {"x": b"3"}, parent_commit=second.oid[:7])


def test_some_hubs_take_a_stale_parent():
    with Hub(enforce_parent=False) as hub:
        api = HfApi(endpoint=hub.url, token=hub.token)
        api.create_repo("org/name")
        first = publish(api, {"x": b"1"})
        publish(api, {"y": b"2"})
        publish(api, {"z": b"3"}, parent_commit=first.oid)
        assert set(hub.repository("org/name").files()) == {".gitattributes", "x", "y", "z"}


def test_of_many_who_commit_at_once_on_one_parent_one_does(hub, api):
    parent = api.model_info("org/name").sha
    outcomes = []

    def attempt(number):
        try:
            outcomes.append(publish(api, {"x": b"%d" % number}, parent_commit=parent).oid)
        except HfHubHTTPError as error:
            outcomes.append(error.response.status_code)

    threads = [threading.Thread(target=attempt, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count(412) == 7
    assert hub.repository("org/name").resolve().sha in outcomes


@pytest.mark.parametrize("path", ["../x", "a/../x", "/x", "a//x", "a/./x", "", ".git/config", "a\0b"])
def test_paths_that_lead_elsewhere_are_refused(hub, api, path):
    body = [
        {"key": "header", "value": {"summary": "Evil"}},
        {"key": "file", "value": {"path": "fine", "content": "", "encoding": "base64"}},
        {"key": "file", "value": {"path": path, "content": "", "encoding": "base64"}},
    ]
    refused(hub, "\n".join(map(json.dumps, body)), 400)
    assert set(hub.repository("org/name").files()) == {".gitattributes"}


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "[]",
        '{"key": "header", "value": {}}\n{"key": "file", "value": {}}',
        '{"key": "header", "value": {}}\n{"key": "explode", "value": {}}',
        '{"key": "header", "value": {}}\n{"key": "file", "value": {"path": "x", "content": "?"}}',
        '{"key": "header", "value": {}}\n{"key": "lfsFile", "value": {"path": "x", "oid": "'
        + "0" * 64
        + '", "size": 1}}',
    ],
)
def test_a_commit_that_makes_no_sense_is_refused(hub, api, body):
    refused(hub, body, 400)
    assert len(hub.repository("org/name").commits()) == 1


def refused(hub, body, status, path="/api/models/org/name/commit/main"):
    with pytest.raises(urllib.error.HTTPError) as caught:
        send(hub, f"{hub.url}{path}", body.encode())
    assert caught.value.code == status


def send(hub, url, body, method="POST"):
    request = urllib.request.Request(url, body, {"Authorization": f"Bearer {hub.token}"}, method=method)
    with urllib.request.urlopen(request) as answer:
        return json.loads(answer.read() or "null")


def test_what_is_uploaded_is_what_was_announced(hub, api):
    sha256 = hashlib.sha256(b"1").hexdigest()
    asked = json.dumps({"objects": [{"oid": sha256, "size": 1}]}).encode()
    (answer,) = send(hub, f"{hub.url}/org/name.git/info/lfs/objects/batch", asked)["objects"]
    upload = answer["actions"]["upload"]["href"]
    refused(hub, json.dumps({"oid": sha256, "size": 1}), 404, "/org/name.git/info/lfs/objects/verify")
    with pytest.raises(urllib.error.HTTPError) as caught:
        send(hub, upload, b"2", "PUT")
    assert caught.value.code == 400
    send(hub, upload, b"1", "PUT")
    send(hub, answer["actions"]["verify"]["href"], json.dumps({"oid": sha256, "size": 1}).encode())
    header = json.dumps({"key": "header", "value": {"summary": "Large"}})
    file = {"key": "lfsFile", "value": {"path": "x", "oid": sha256, "size": 2}}
    refused(hub, f"{header}\n{json.dumps(file)}", 400)
    file["value"]["size"] = 1
    send(hub, f"{hub.url}/api/models/org/name/commit/main", f"{header}\n{json.dumps(file)}".encode())
    assert hub.repository("org/name").files()["x"] == b"1"


def test_a_large_file_does_not_go_into_git(hub, api):
    large = base64.b64encode(bytes((10 << 20) + 1)).decode()
    file = {"key": "file", "value": {"path": "x", "content": large, "encoding": "base64"}}
    refused(hub, json.dumps({"key": "header", "value": {"summary": "Large"}}) + "\n" + json.dumps(file), 400)
    publish(api, {"x": bytes((10 << 20) + 1)})
    assert hub.repository("org/name").resolve().files["x"].lfs


def test_a_commit_of_nothing_is_a_commit(hub, api):
    """As on the real Hub; huggingface_hub's client does not send such a one."""
    body = json.dumps({"key": "header", "value": {"summary": "Nothing"}}).encode()
    made = send(hub, f"{hub.url}/api/models/org/name/commit/main", body)["commitOid"]
    first, second = hub.repository("org/name").commits()[::-1]
    assert (second.sha, second.folders) == (made, first.folders)


def test_half_a_request_is_none(hub, api):
    """A client that dies while it sends a commit has sent nothing, wherever it stopped."""
    lines = [
        {"key": "header", "value": {"summary": "Two files"}},
        {"key": "file", "value": {"path": "one", "content": "", "encoding": "base64"}},
    ]
    half = "".join(json.dumps(line) + "\n" for line in lines)
    head = f"POST /api/models/org/name/commit/main HTTP/1.1\r\nAuthorization: Bearer {hub.token}\r\n"
    host, port = hub.url.removeprefix("http://").split(":")
    for framing in (
        f"Content-Length: {2 * len(half)}\r\n\r\n{half}",
        f"Transfer-Encoding: chunked\r\n\r\n{len(half):x}\r\n{half}\r\n",
    ):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(f"{head}{framing}".encode())
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(100) == b""
    assert len(hub.repository("org/name").commits()) == 1


def test_the_tree_has_hashes_sizes_and_folders(hub, api):
    made = publish(api, FILES)
    entries = {entry.path: entry for entry in api.list_repo_tree("org/name", recursive=True, expand=True)}
    assert set(entries) == {".gitattributes", "deep", "deep/down", *NAMES}
    weights = entries[NAMES[2]]
    assert (weights.size, weights.lfs.sha256) == (len(WEIGHTS), hashlib.sha256(WEIGHTS).hexdigest())
    assert bool(weights.xet_hash) == bool(hub.cas)
    assert weights.last_commit.oid == made.oid
    assert entries[".gitattributes"].last_commit.title == "initial commit"
    assert entries["README.md"].blob_id == hashlib.sha1(b"blob %d\0%s" % (len(CARD), CARD)).hexdigest()
    assert {entry.path for entry in api.list_repo_tree("org/name")} == {".gitattributes", "deep", *NAMES[:2], NAMES[3]}
    assert [entry.path for entry in api.list_repo_tree("org/name", "deep/down")] == [NAMES[2]]
    with pytest.raises(EntryNotFoundError):
        list(api.list_repo_tree("org/name", "nowhere"))
    found = api.get_paths_info("org/name", ["README.md", "deep", "nowhere"])
    assert [entry.path for entry in found] == ["README.md", "deep"]


def test_a_long_listing_comes_in_pages(hub, api):
    hub.put("org/many", {f"{index:05d}": b"" for index in range(2500)})
    assert len(api.list_repo_files("org/many")) == 2501
    assert len(list(api.list_repo_tree("org/many"))) == 2501
    assert len(asked(hub, "/tree/")) == 2 * 3


def test_the_info_has_siblings_and_numbers_of_tensors(api):
    publish(api, {"adapter_model.safetensors": WEIGHTS})
    info = api.model_info("org/name", files_metadata=True)
    (weights,) = (one for one in info.siblings if one.lfs)
    assert (weights.rfilename, weights.size) == ("adapter_model.safetensors", len(WEIGHTS))
    assert (info.safetensors.parameters, info.safetensors.total) == ({"F16": 3, "F32": 50_000}, 50_003)
    assert api.model_info("org/name", expand=["sha"]).siblings is None


def test_a_part_of_a_file_can_be_read(hub, api):
    publish(api, FILES)
    metadata = api.parse_safetensors_file_metadata("org/name", NAMES[2])
    assert metadata.tensors["a"].shape == [50_000]
    url = f"{hub.url}/org/name/resolve/main/README.md"

    def part(wanted):
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {hub.token}", "Range": wanted})
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read()

    assert part("bytes=1-3") == (206, CARD[1:4])
    assert part("bytes=5-") == (206, CARD[5:])
    assert part("bytes=-4") == (206, CARD[-4:])
    assert part("bytes=0-1000000") == (206, CARD)
    with pytest.raises(urllib.error.HTTPError) as caught:
        part("bytes=1000-")
    assert caught.value.code == 416


def test_a_file_that_is_not_there(api, tmp_path):
    assert not api.file_exists("org/name", "nowhere")
    assert api.file_exists("org/name", ".gitattributes")
    with pytest.raises(EntryNotFoundError):
        api.hf_hub_download("org/name", "nowhere", cache_dir=tmp_path)


def test_tests_can_put_any_path_into_a_repository(hub, api):
    hub.put(
        "org/evil", {"../x": b"out", "/etc/x": b"root", "a\0b": b"nul", "A": b"", "a": b"", "con": b""}, hostile=True
    )
    listed = {entry.path for entry in api.list_repo_tree("org/evil", recursive=True)}
    assert {"../x", "/etc/x", "a\0b", "A", "a", "con"} <= listed
    assert hub.repository("org/evil").files()["../x"] == b"out"
    with pytest.raises(ValueError, match=r"'\.\./x'"):
        hub.put("org/name", {"../x": b"out"})


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_ids_are_those_that_git_gives(hub, tmp_path):
    files = {"a": b"1", "a.b": b"2", "a-b/c": b"3", "b/a": b"4", "b.x/y/z": b"5"}
    hub.put("org/git", files, hostile=True)

    def git(*arguments):
        command = ["git", "-C", str(tmp_path / "tree"), *arguments]
        return subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()

    for path, content in files.items():
        (tmp_path / "tree" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / path).write_bytes(content)
    git("init", "--quiet")
    git("add", ".")
    commit = hub.repository("org/git").resolve()
    assert commit.folders[""] == git("write-tree")
    assert commit.files["b/a"].oid == git("hash-object", "b/a")
