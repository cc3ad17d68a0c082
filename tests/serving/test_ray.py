"""A deployment on a Ray of this machine's own, with two replicas: one test of many steps, as a Ray takes long to start."""

import concurrent.futures
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
import openai
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

pytest.importorskip("ray.serve")

import ray

from adapterkit import Base, Stack, Store, Text
from adapterkit.serving import Engine
from adapterkit.serving.http import Keys, Settings
from tests.support import EXAMPLE_BASE, make_adapter

from .engines import until
from .http_server import ADMIN, USER, as_who

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
CALL = "import sys; from adapterkit.cli import main; sys.exit(main())"
NAMES = [f"cards-{number}" for number in range(8)]
ASKED_FOR = 3
"""How many of them are asked for before it is seen where requests go."""
ASKED = {"prompt": "The card was", "max_tokens": 6, "temperature": 0}


@pytest.fixture(scope="module")
def folders(tmp_path_factory, example_base):
    folder = tmp_path_factory.mktemp("adapters")
    return {name: make_adapter(example_base, seed=seed).save(folder / name) for seed, name in enumerate(NAMES)}


@pytest.fixture(scope="module")
def store(tmp_path_factory, example_base):
    store = Store(tmp_path_factory.mktemp("store"))
    for seed in (21, 22):
        store.add(make_adapter(example_base, seed=seed), "stored")
    store.promote("stored@1", "production")
    return store


@contextlib.contextmanager
def served(folders, store):
    """The URL of two replicas; nothing of Ray is left afterwards."""
    from adapterkit.serving.ray import deploy, stop

    port = free_port()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init("local", num_cpus=4, object_store_memory=100 * 2**20, include_dashboard=False, log_to_driver=False)
    try:
        settings = Settings(port=port, keys=Keys.of([USER], [ADMIN]), drain=30.0, max_body=200_000)
        engine = {"max_batch": 2, "max_queue_per_adapter": 1}
        yield deploy(EXAMPLE_BASE, folders, store=store.folder, settings=settings, engine=engine, replicas=2, cpus=0.5)
    finally:
        stop()


def test_two_replicas(folders, store, example_base):
    with served(folders, store) as url, httpx.Client(base_url=url, headers=as_who(USER), timeout=60) as client:
        the_answers_are_the_engines_own(url, folders, example_base)
        each_adapter_is_at_one_replica(client)
        whoever_may_not_ask_is_refused(client)
        what_others_would_not_see_is_not_changed(client)
        an_alias_that_moves_moves_for_all(client, store)
        what_is_added_is_there_for_all(client, store)
        too_many_at_once_are_told_to_come_back(client)
        who_leaves_is_not_answered(client)
        the_service_goes_on_without_a_replica(url)
        what_is_under_way_is_finished(client)
    assert not ray.is_initialized()


def test_the_command_serves_until_it_is_told_to_stop(folders):
    port = free_port()
    command = [sys.executable, "-c", CALL, "serve", str(EXAMPLE_BASE), "--no-store", "--replicas", "1"]
    command += ["--port", str(port), "--adapter", f"cards-0={folders['cards-0']}"]
    environment = {**os.environ, "ADAPTERKIT_API_KEY": USER, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            said = ""
            while "1 replicas at" not in said:
                said += process.stderr.readline()
                assert process.poll() is None, said
            threading.Thread(target=process.stderr.read, daemon=True).start()
            body = {**ASKED, "model": "cards-0"}
            url = f"http://127.0.0.1:{port}/v1/completions"
            assert httpx.post(url, json=body, headers=as_who(USER), timeout=60).status_code == 200
            assert httpx.post(url, json=body, timeout=60).status_code == 401
            started = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(signal.SIGTERM)
            assert process.wait(90) == 0
        finally:
            process.kill()
    _, left = psutil.wait_procs(started, timeout=30)
    assert started
    assert not left


# -- each of them a step of the test


def the_answers_are_the_engines_own(url, folders, example_base):
    """With OpenAI's client as it is, whole and streamed, one adapter and several."""
    client = openai.OpenAI(base_url=f"{url}/v1", api_key=USER, max_retries=0)
    models = [
        example_base.source.name.rpartition("/")[2],
        *NAMES[:ASKED_FOR],
        "cards-0+cards-1",
        "cards-2*0.5",
        "stored@2",
    ]
    assert {model.id for model in client.models.list()} == {models[0], *NAMES, "stored"}
    adapters = {name: Base(EXAMPLE_BASE).load(folder) for name, folder in list(folders.items())[:2]}
    with Engine(example_base, folders | {"both": Stack(*adapters.values())}) as engine:
        for model in models[:-1]:
            said = {"cards-0+cards-1": "both", models[0]: ""}.get(model, model)
            expected = engine.generate(Text(ASKED["prompt"]), model=said, max_new_tokens=6)
            assert client.completions.create(model=model, **ASKED).choices[0].text == expected
            chunks = list(client.completions.create(model=model, stream=True, **ASKED))
            assert "".join(chunk.choices[0].text for chunk in chunks) == expected
            assert len(chunks) > 2
    turns = [{"role": "user", "content": "Hello"}]
    with pytest.raises(openai.NotFoundError, match="nobody"):
        client.chat.completions.create(model="nobody", messages=turns)
    assert client.chat.completions.create(model="stored@2", messages=turns, max_tokens=2).usage.completion_tokens == 2


def each_adapter_is_at_one_replica(client):
    """Where its first request went; what is asked before the way in has heard of that may go to either."""
    before = requests_of(client)
    assert len({replica for _, replica in before}) == 2
    fresh = NAMES[ASKED_FOR:]
    for times in (1, 5):
        bodies = [{**ASKED, "model": name} for name in fresh for _ in range(times)]
        assert {client.post("/v1/completions", json=body).status_code for body in bodies} == {200}
        time.sleep(3)
    new = {key: count for key, count in requests_of(client).items() if key[0] in fresh}
    assert sum(new.values()) == 6 * len(fresh)
    for name in fresh:  # all but at most one; at random, half would
        assert max(count for (adapter, _), count in new.items() if adapter == name) >= 5, new


def whoever_may_not_ask_is_refused(client):
    body = {**ASKED, "model": "cards-0"}
    none = httpx.post(client.base_url.join("/v1/completions"), json=body)
    assert (none.status_code, none.json()["error"]["code"]) == (401, "invalid_api_key")
    assert client.get("/metrics", headers=as_who("wrong")).status_code == 401
    added = client.post("/v1/adapters", json={"name": "new", "source": "stored@1"})
    assert (added.status_code, added.json()["error"]["code"]) == (403, "admin_key_needed")
    assert client.post("/v1/completions", json={**body, "temperature": 9}).status_code == 400
    assert client.post("/v1/completions", content=b"x" * 300_000).status_code == 413
    assert client.post("/v1/completions", content=iter([b"x" * 100_000] * 3)).status_code in (400, 413)
    assert client.get("/nowhere").status_code == 404
    assert client.get("/ready").json() == {"status": "ready"}
    foreign = client.get("/v1/models", headers={"host": "elsewhere.example"})
    assert (foreign.status_code, foreign.json()["error"]["code"]) == (400, "invalid_host")
    named = client.get("/v1/models", headers={"x-request-id": "mine-1"})
    assert named.headers.get_list("x-request-id") == ["mine-1"]


def what_others_would_not_see_is_not_changed(client):
    for answer in (
        client.delete("/v1/adapters/cards-0", headers=as_who(ADMIN)),
        client.post("/v1/adapters/cards-0/pin", headers=as_who(ADMIN)),
        client.post(
            "/v1/adapters", json={"name": "cards-0", "source": "stored@1", "replace": True}, headers=as_who(ADMIN)
        ),
        client.post("/v1/unload_lora_adapter", json={"lora_name": "cards-0"}, headers=as_who(ADMIN)),
    ):
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "not_shared")


def an_alias_that_moves_moves_for_all(client, store):
    digests = [store.resolve(f"stored@{number}").digest for number in (1, 2)]
    assert told(client, "stored@production") == {digests[0]}
    moved = client.post("/v1/adapters/stored/aliases/production", json={"version": 2}, headers=as_who(ADMIN))
    assert moved.status_code == 200
    assert told(client, "stored@production") == {digests[1]}
    back = client.post("/v1/adapters/stored/aliases/production/rollback", json={}, headers=as_who(ADMIN))
    assert back.status_code == 200
    assert told(client, "stored@production") == {digests[0]}


def what_is_added_is_there_for_all(client, store):
    added = client.post("/v1/adapters", json={"name": "new", "source": "stored@2"}, headers=as_who(ADMIN))
    assert added.status_code == 200
    assert told(client, "new") == {store.resolve("stored@2").digest}
    assert client.delete("/v1/adapters/new", headers=as_who(ADMIN)).status_code == 200
    assert told(client, "new") == {None}


def too_many_at_once_are_told_to_come_back(client):
    """A replica answers two at once, and lets one more wait for this adapter."""
    body = {**ASKED, "model": "cards-3", "max_tokens": 60}
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: client.post("/v1/completions", json=body), range(16)))
    refused = [answer for answer in answers if answer.status_code == 429]
    assert {answer.status_code for answer in answers} == {200, 429}
    assert refused[0].json()["error"]["code"] == "rate_limit_exceeded"
    assert int(refused[0].headers["retry-after"]) >= 1


def who_leaves_is_not_answered(client):
    body = {**ASKED, "model": "cards-4", "max_tokens": 400, "stream": True}
    with client.stream("POST", "/v1/completions", json=body) as response:
        next(response.iter_lines())
    until(lambda: sum(figures(client, "adapterkit_running").values()) == 0, pause=0.2)
    cancelled = figures(client, "adapterkit_requests_total", adapter="cards-4", outcome="cancelled")
    assert sum(cancelled.values()) == 1


def the_service_goes_on_without_a_replica(url):
    client = openai.OpenAI(base_url=f"{url}/v1", api_key=USER, max_retries=6)
    before = replicas()
    assert len(before) == 2
    os.kill(min(before), signal.SIGKILL)
    for _ in range(3):  # the client asks again where it is told to, as it does by default
        for name in NAMES:
            assert client.completions.create(model=name, **ASKED).choices[0].finish_reason == "length"
    until(lambda: len(replicas()) == 2 and replicas() != before, seconds=90, pause=0.2)


def what_is_under_way_is_finished(client):
    from ray import serve

    body = {**ASKED, "model": "cards-5", "max_tokens": 200, "stream": True}
    with client.stream("POST", "/v1/completions", json=body) as response:
        lines = response.iter_lines()
        next(lines)
        stopping = threading.Thread(target=serve.delete, args=("adapterkit",))
        stopping.start()
        assert [line for line in lines if line][-1] == "data: [DONE]"
    stopping.join(90)
    assert not stopping.is_alive()
    assert replicas() == set()


# -- what they look at


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def figures(client, name, **labels):
    """The values of one figure, by the replica and the adapter that they are of."""
    answer = client.get("/metrics")
    assert answer.status_code == 200
    samples = [one for family in text_string_to_metric_families(answer.text) for one in family.samples]
    found = [one for one in samples if one.name == name and labels.items() <= one.labels.items()]
    return {(one.labels.get("adapter"), one.labels["replica"]): one.value for one in found}


def requests_of(client):
    return figures(client, "adapterkit_requests_total", outcome="length")


def told(client, model):
    """What the replicas say that a name means: asked often enough that both have a say."""
    return {client.get(f"/v1/models/{model}").json().get("digest") for _ in range(12)}


def replicas():
    """The processes of the replicas that this test has started."""
    mine = psutil.Process().children(recursive=True)
    found = set()
    for process in mine:
        with contextlib.suppress(psutil.NoSuchProcess):
            if "ServeReplica:adapterkit:Replica" in " ".join(process.cmdline()):
                found.add(process.pid)
    return found
