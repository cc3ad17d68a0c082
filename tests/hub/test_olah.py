"""What reads from the test Hub reads from olah too: a Hub mirror by other people (MIT, https://pypi.org/project/olah).

It is run in an environment of its own, once over git repositories and once as a mirror of the test Hub.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import venv
from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants

from adapterkit import Adapter, Base, Store, pull
from adapterkit.testing import tiny_llama
from adapterkit.testing.hub import Hub
from tests.support import make_adapter

OLAH = "olah==0.5.4"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed"),
]


def pip(*arguments):
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """``olah-cli``, installed anew."""
    folder = tmp_path_factory.mktemp("olah")
    reached = pip("download", "--no-deps", "--dest", folder / "reached", OLAH)
    if reached.returncode:
        pytest.skip(f"{OLAH} cannot be had: {reached.stderr.strip().splitlines()[-1]}")
    venv.create(folder / "environment", symlinks=os.name != "nt")
    scripts = folder / "environment" / ("Scripts" if os.name == "nt" else "bin")
    installed = pip("--python", scripts / "python", "install", OLAH)
    assert installed.returncode == 0, installed.stderr[-4000:]
    return scripts / "olah-cli"


@contextlib.contextmanager
def olah(command, folder, *, offline, basic):
    """Its address while it runs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder.mkdir()
    given = {"host": "127.0.0.1", "port": port, "repos-path": str(folder / "repos"), **basic}
    lines = ["[basic]", *(f"{name} = {json.dumps(value)}" for name, value in given.items())]
    lines += ["[accessibility]", f"offline = {json.dumps(offline)}"]
    (folder / "config.toml").write_text("\n".join(lines))  # what is plain in JSON is the same in TOML
    with (folder / "output").open("wb") as output:
        running = subprocess.Popen(
            [str(command), "--config", "config.toml", "--log-path", "logs"], cwd=folder, stdout=output, stderr=output
        )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_it_answers(url, running, folder / "output")
        yield url
    finally:
        running.terminate()
        running.wait(30)


def wait_until_it_answers(url, running, output):
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        assert running.poll() is None, output.read_text()[-4000:]
        try:
            urllib.request.urlopen(url, timeout=5)
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.2)
        else:
            return
    pytest.fail(f"olah does not answer: {output.read_text()[-4000:]}")


def git(folder, *arguments):
    identity = ["-c", "user.name=tester", "-c", "user.email=tester@localhost"]
    done = subprocess.run(["git", "-C", folder, *identity, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def adapters():
    base = Base(tiny_llama())
    return [make_adapter(base, seed=seed) for seed in range(2)]


@pytest.fixture
def assert_pulled(monkeypatch, tmp_path):
    """Sees that an adapter comes through whole: with huggingface_hub, and with ``pull``."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    store = Store(tmp_path / "store")

    def check(url, revision, wanted, commit):
        monkeypatch.setenv("HF_ENDPOINT", url)
        folder = HfApi(endpoint=url, token=False).snapshot_download(
            "org/cards", revision=revision, cache_dir=tmp_path / f"cache-{revision}"
        )
        assert Path(folder).name == commit
        assert Adapter.load(folder).digest == wanted.digest
        pulled = pull(f"hf://org/cards@{revision}", store=store)
        assert (pulled.digest, pulled.origin) == (wanted.digest, f"hf://org/cards@{commit}")

    return check


def test_adapters_are_pulled_from_git_repositories(command, adapters, assert_pulled, tmp_path):
    repo = tmp_path / "mirrors" / "models" / "org" / "cards"
    repo.mkdir(parents=True)
    git(repo, "init", "--quiet", "--initial-branch", "main")
    for version, adapter in enumerate(adapters, 1):
        adapter.save(tmp_path / f"v{version}")
        shutil.copytree(tmp_path / f"v{version}", repo, dirs_exist_ok=True)
        git(repo, "add", ".")
        git(repo, "commit", "--quiet", "--message", f"Version {version}")
        git(repo, "tag", f"v{version}")
    with olah(command, tmp_path / "olah", offline=True, basic={"mirrors-path": [str(tmp_path / "mirrors")]}) as url:
        for revision, wanted in (("main", adapters[1]), ("v1", adapters[0]), ("v2", adapters[1])):
            assert_pulled(url, revision, wanted, git(repo, "rev-parse", revision))


def test_adapters_are_pulled_from_a_mirror_of_the_test_hub(command, adapters, assert_pulled, tmp_path):
    with Hub(xet=False) as hub:
        for version, adapter in enumerate(adapters, 1):
            folder = adapter.save(tmp_path / f"v{version}")
            hub.put("org/cards", {path.name: path.read_bytes() for path in folder.iterdir()})
            hub.repository("org/cards").add_ref("tag", f"v{version}", "main")
        places = {"hf-netloc": hub.url, "hf-lfs-netloc": hub.storage_url}
        upstream = {"hf-scheme": "http", **{name: url.removeprefix("http://") for name, url in places.items()}}
        with olah(command, tmp_path / "olah", offline=False, basic=upstream) as url:
            for revision, wanted in (("main", adapters[1]), ("v1", adapters[0])):
                assert_pulled(url, revision, wanted, hub.repository("org/cards").resolve(revision).sha)
        assert hub.requests
