"""Publishers that are killed, and publishers that meet: every version is there as a whole or not at all."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from adapterkit import ConflictError, pull
from adapterkit.publishing import revisions
from tests.publish.conftest import started

URL = "hf://org/cards"
FILES = {"README.md", "adapter_config.json", "adapter_model.safetensors", "adapterkit.json"}


@contextlib.contextmanager
def publisher(folders, url=URL):
    """A process that publishes what it is told, each time in a child of its own."""
    script = Path(__file__).with_name("publisher.py")
    process = subprocess.Popen(
        [sys.executable, script, folders, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ
    )
    try:
        yield process
    finally:
        process.stdin.close()
        process.wait(30)


def ask(process, seed, tag):
    print(seed, tag, file=process.stdin, flush=True)
    return int(process.stdout.readline())


def check(hub, make, store):
    """Every commit holds a whole version, and every tag a version that can be pulled."""
    if "org/cards" not in hub.repositories:
        return
    for one in revisions(URL):
        assert set(hub.repository("org/cards").files(one.id)) >= FILES
        for tag in one.tags:
            seed = int(tag.removeprefix("v"))
            assert store.load(pull(f"{URL}@{tag}", store=store)) == make(seed=seed, rank=64)


@pytest.mark.parametrize(
    ("xet", "kills"),
    [(False, 1), pytest.param(False, 20, marks=pytest.mark.slow), pytest.param(True, 20, marks=pytest.mark.slow)],
)
def test_a_publish_that_is_killed_at_any_moment_leaves_no_half_of_a_version(
    monkeypatch, make, store, tmp_path, xet, kills
):
    stream = random.Random(kills)
    with started(monkeypatch, xet=xet) as hub:
        for seed in range(kills + 1):
            make(seed=seed, rank=64).save(tmp_path / "adapters" / str(seed))
        with publisher(tmp_path / "adapters") as process:
            begin = time.monotonic()
            ask(process, 0, "v0")
            assert process.stdout.readline() == "0\n"
            whole = time.monotonic() - begin
            for seed in range(1, kills + 1):
                child = ask(process, seed, f"v{seed}")
                time.sleep(stream.uniform(0, whole))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
                process.stdout.readline()
                check(hub, make, store)
            ask(process, kills, f"v{kills}")  # whoever asks again gets to the end
            assert process.stdout.readline() == "0\n"
        check(hub, make, store)
        assert revisions(URL)[0].tags == (f"v{kills}",)


def test_of_several_publishers_at_once_none_loses_a_version(monkeypatch, make, tmp_path):
    from adapterkit import publish

    about = {"license": "apache-2.0", "base_model": "org/tiny"}
    with started(monkeypatch, xet=False):
        publish(make(seed=0), URL, tag="v0", **about)

        def go(seed):
            try:
                return publish(make(seed=seed), URL, tag=f"v{seed}", **about).revision
            except ConflictError:
                return None

        with ThreadPoolExecutor(4) as pool:
            made = list(pool.map(go, range(1, 9)))
        assert any(made)
        found = {one.id: one.tags for one in revisions(URL)}
        assert set(filter(None, made)) <= set(found)
        assert {tag for tags in found.values() for tag in tags} == {
            "v0",
            *(f"v{n}" for n, one in enumerate(made, 1) if one),
        }
