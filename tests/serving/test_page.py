"""What the page at ``/`` is made of, and what it reads of the server. What it does with it: test_page_in_browser.py."""

import re
from importlib import resources

from adapterkit import Blend, Store
from adapterkit.serving import Engine
from adapterkit.serving.http.page import ASSETS
from tests.support import make_adapter

from .engines import until
from .http_server import ADMIN, KEYS, USER, as_who, client_of, engine_of


def test_all_of_the_page_comes_from_the_server_and_nothing_of_it_from_elsewhere(example_base):
    with engine_of(example_base, max_length=64) as engine, client_of(engine, keys=KEYS) as client:
        for path in ("/", *ASSETS):
            response = client.get(path)
            assert response.status_code == 200
            policy = response.headers["content-security-policy"]
            assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
            assert "unsafe" not in policy
            addresses = set(re.findall(r"https?://[^\s\"']+|(?<=[\"'(])//[^\s\"']+", response.text))
            assert addresses <= {"http://www.w3.org/2000/svg"}
            assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", response.text)
            assert not re.search(r"localStorage|sessionStorage|indexedDB|document\.cookie", response.text)
        assert set(re.findall(r'(?:src|href)="(page/[^"]+)"', client.get("/").text)) < {path[1:] for path in ASSETS}
        for path in ("/page/", "/page/page.py", "/page/../page.py", "/page/%2e%2e/page.py", "/page/style.css/x"):
            assert client.get(path).status_code == 404
        assert client.post("/page/style.css").status_code == 405
    files = {one.name for one in (resources.files("adapterkit.serving.http") / "assets").iterdir()}
    assert {f"/page/{name}" for name in files - {"index.html"}} == set(ASSETS)


def test_figures_of_the_moment_are_told_in_json(example_base):
    with engine_of(example_base, max_length=64) as engine, client_of(engine, USER, keys=KEYS) as client:
        before = client.get("/v1/stats").json()
        assert (before["state"], before["tokens"], before["running"], before["store"]) == ("ready", 0, 0, False)
        assert before["recent"]["time_to_first_token"] == {"count": 0, "p50": None, "p95": None}
        asked = {"model": "cards", "prompt": "The card", "max_tokens": 5, "temperature": 0}
        made = client.post("/v1/completions", json=asked).json()["usage"]["completion_tokens"]
        until(lambda: client.get("/v1/stats").json()["tokens"] == made)  # the last step ends after the answer
        after = client.get("/v1/stats").json()
        assert after["tiers"]["device"]["adapters"] == 1
        assert after["tiers"]["device"]["bytes"] == engine.residency.held()[0].bytes
        for kind in ("time_to_first_token", "time_per_token"):
            assert after["recent"][kind]["count"] == 1
            assert 0 < after["recent"][kind]["p50"] <= after["recent"][kind]["p95"]
        assert client.get("/v1/stats", headers=as_who("wrong")).status_code == 401


def test_versions_and_blends_are_listed_where_they_are(example_base, tmp_path):
    store = Store(tmp_path / "store")
    for seed in (1, 2):
        store.add(make_adapter(example_base, seed=seed), "mail")
    mix = tmp_path / "mix.json"
    one, two = (make_adapter(example_base, seed=seed) for seed in (3, 4))
    one.save(tmp_path / "one"), two.save(tmp_path / "two")
    Blend({one: 0.5, two: 0.5}).save(mix, {one: tmp_path / "one", two: tmp_path / "two"})
    adapters = {"mix": mix, "one": tmp_path / "one"}
    with Engine(example_base, adapters, store=store, max_length=64) as engine, client_of(engine) as client:

        def listed():
            return {one["name"]: one for one in client.get("/v1/adapters").json()["data"]}

        def ask(model):
            client.post("/v1/completions", json={"model": model, "prompt": "x", "max_tokens": 1}).raise_for_status()

        assert (listed()["mail"]["version_tiers"], listed()["mix"]["tiers"]) == ({}, [])
        ask("mail@1")
        assert listed()["mail"]["version_tiers"] == {"1": ["device", "host"]}
        assert listed()["mail"]["tiers"] == []  # the name means version 2
        ask("one")
        assert (listed()["one"]["tiers"], listed()["mix"]["tiers"]) == (["device", "host"], [])
        ask("mix")
        assert listed()["mix"]["tiers"] == ["device", "host"]


def test_a_rollback_is_refused_where_somebody_was_faster(example_base, tmp_path):
    store = Store(tmp_path / "store")
    for seed in (1, 2):
        store.add(make_adapter(example_base, seed=seed), "mail")
        store.promote(f"mail@{seed}", "production")
    with Engine(example_base, store=store, max_length=64) as engine, client_of(engine, ADMIN, keys=KEYS) as client:
        path = "/v1/adapters/mail/aliases/production/rollback"
        assert client.post(path, json={"expect": 1}).status_code == 409
        assert store.resolve("mail@production").number == 2
        assert client.post(path, json={"expect": 2}).json()["version"] == 1
