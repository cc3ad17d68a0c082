"""One store from many threads and processes, and what is left where one of them dies."""

import json
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from adapterkit import Store

CROWD = Path(__file__).with_name("crowd.py")
TIME = 280


def crowd(tmp_path, adapter, *arguments):
    """What a crowd of processes did; see there."""
    folder = adapter.save(tmp_path / "adapter")
    words = [sys.executable, str(CROWD), arguments[0], str(tmp_path / "store"), str(folder), *map(str, arguments[1:])]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=TIME, cwd=CROWD.parents[2])
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def check_settled(said):
    """No update was lost, every version can be read, and nothing is damaged or left."""
    assert said["problems"] == []
    assert said["unreadable"] == []
    assert said["counted"]
    assert said["linked"]
    assert said["head"]
    assert said["orphans"] == 0


def check_work(said):
    assert said["failed"] == []
    check_settled(said)
    assert said["moves"] == said["done"]["count"] > 0
    assert all(said["done"][what] > 0 for what in ("add", "read", "move", "collect", "too late"))


def test_processes_add_promote_read_and_collect_at_once(tmp_path, adapters):
    check_work(crowd(tmp_path, adapters[0], "work", 4, 5))


@pytest.mark.slow
def test_sixteen_processes_add_promote_read_and_collect_at_once(tmp_path, adapters):
    check_work(crowd(tmp_path, adapters[0], "work", 16, 60))


def test_a_killed_process_leaves_a_sound_store(tmp_path, adapters):
    said = crowd(tmp_path, adapters[0], "kill", 6)
    assert said["damage"] == []
    check_settled(said)


@pytest.mark.slow
def test_fifty_kills_leave_a_sound_store(tmp_path, adapters):
    said = crowd(tmp_path, adapters[0], "kill", 50)
    assert said["damage"] == []
    check_settled(said)


def test_threads_share_a_store(store, adapters):
    failed = []

    def work(number):
        try:
            for step in range(6):
                version = store.add(adapters[(number + step) % 3], f"name{number % 2}")
                store.promote(version, "head")
                assert store.load(version).digest == version.digest
        except BaseException as error:  # noqa: BLE001 - it is shown below
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert store.verify().problems == ()


def promote(store, version):
    store.promote(version, "child")
    store.add(store.load(version), "copy")


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_store_goes_along_to_another_process(filled, method):
    assert pickle.loads(pickle.dumps(filled)).folder == filled.folder
    child = multiprocessing.get_context(method).Process(target=promote, args=(filled, "cards@3"))
    filled.promote("cards@1", "child")
    child.start()
    filled.promote("cards@2", "child")
    child.join()
    assert child.exitcode == 0
    assert filled.history("cards@child")[0].after == 1
    assert str(filled.resolve("copy")) == "copy@1"
    assert filled.verify().problems == ()


def test_a_store_that_was_deleted_and_made_anew_is_the_new_one(tmp_path, adapters):
    import shutil

    store, other = Store(tmp_path / "store"), Store(tmp_path / "store")
    store.add(adapters[0], "cards")
    assert other.names() == ["cards"]
    shutil.rmtree(store.folder)
    store.add(adapters[1], "tone")
    assert other.names() == store.names() == ["tone"]


def test_a_forked_process_never_has_its_parents_connection(filled):
    filled.names()
    assert filled._index._connection is not None
    child = os.fork()
    if child == 0:
        os._exit(0 if filled._index._connection is None and filled.names() == ["cards"] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert filled.names() == ["cards"]
