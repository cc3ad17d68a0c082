"""What the deployment on Ray is made of, without Ray running."""

import asyncio
import json
import sys

import pytest
from starlette.responses import StreamingResponse

pytest.importorskip("ray.serve")

from adapterkit.cli import main
from adapterkit.errors import ConfigError
from adapterkit.serving.http import Keys, Settings
from adapterkit.serving.ray import app, build
from adapterkit.serving.ray.figures import together
from adapterkit.serving.ray.ingress import first_name
from adapterkit.serving.ray.options import Recipe, this_machine
from adapterkit.serving.ray.passing import answered
from tests.support import EXAMPLE_BASE

SCOPE = {"type": "http", "asgi": {"spec_version": "2.4", "version": "3.0"}, "method": "GET", "path": "/", "headers": []}


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("cards", "cards"),
        ("cards@3", "cards"),
        ("cards@production+tone", "cards"),
        ("cards*0.7+tone*0.3", "cards"),
        ("a" * 10_000_000, "a" * 4096),
        ("+", ""),
        ("cards*x", ""),
        (3, ""),
        (None, ""),
        ([], ""),
    ],
)
def test_the_first_adapter_decides(model, name):
    assert first_name(json.dumps({"model": model}).encode()) == name


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"no json", b"\xff", b"[" * 100_000])
def test_what_names_no_adapter_goes_to_any(body):
    assert first_name(body) == ""


def test_an_answer_comes_as_it_is_made():
    begun = asyncio.Event

    async def collect():
        more = begun()

        async def pieces():
            yield b"one"
            await more.wait()
            yield b"two"

        messages = answered(StreamingResponse(pieces()), SCOPE, b"")
        found = []
        async for some in messages:
            found += [message.get("body") for message in some]
            if b"one" in found:
                more.set()  # it has come while the rest is not made
        return found

    assert asyncio.run(collect()) == [None, b"one", b"two", b""]


def test_leaving_early_is_the_clients_leaving():
    async def collect():
        gone = asyncio.Event()

        async def application(scope, receive, send):
            assert (await receive())["body"] == b"asked"
            await send({"type": "http.response.start", "status": 200, "headers": []})
            assert (await receive())["type"] == "http.disconnect"
            gone.set()

        messages = answered(application, SCOPE, b"asked")
        await anext(messages)
        await messages.aclose()
        await asyncio.wait_for(gone.wait(), 5)

    asyncio.run(collect())


def test_what_an_application_fails_of_is_raised():
    async def collect():
        async def application(scope, receive, send):
            await send({"type": "http.response.start", "status": 200, "headers": []})
            raise LookupError("broken")

        return [some async for some in answered(application, SCOPE, b"")]

    with pytest.raises(LookupError, match="broken"):
        asyncio.run(collect())


def messages_of(body, status=200):
    kind = (b"content-type", b"text/plain; version=0.0.4")
    start = {"type": "http.response.start", "status": status, "headers": [kind, (b"content-length", b"1")]}
    return [start, {"type": "http.response.body", "body": body}]


def test_figures_of_replicas_stay_apart():
    text = b'# HELP a_total About.\n# TYPE a_total counter\na_total{adapter="cards"} 3.0\n# TYPE b gauge\nb 1.0\n'
    response = together({"r2": messages_of(text), "r1": messages_of(text)})
    assert response.body.decode().splitlines() == [
        "# HELP a_total About.",
        "# TYPE a_total counter",
        'a_total{adapter="cards",replica="r1"} 3.0',
        'a_total{adapter="cards",replica="r2"} 3.0',
        "# HELP b ",
        "# TYPE b gauge",
        'b{replica="r1"} 1.0',
        'b{replica="r2"} 1.0',
    ]
    assert response.headers["content-length"] == str(len(response.body))
    assert response.headers["content-type"] == "text/plain; version=0.0.4"


def test_figures_are_refused_as_a_replica_refuses_them():
    response = together({"r1": messages_of(b"no key", 401), "r2": messages_of(b"no key", 401)})
    assert (response.status_code, response.body) == (401, b"no key")


@pytest.fixture
def keys(monkeypatch):
    monkeypatch.setenv("ADAPTERKIT_API_KEY", "user-key-1")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"replica": 2}, "replicas"),
        ({"replicas": 0}, "replicas"),
        ({"replicas": 4, "max_replicas": 2}, "max_replicas=2 is less than replicas=4"),
        ({"engine": {"max_bach": 2}}, "max_batch"),
        ({"opening": {"dtyp": "float32"}}, "dtype"),
    ],
)
def test_options_that_do_not_fit(keys, options, said):
    with pytest.raises(ConfigError, match=said):
        build("base", **options)


def test_without_a_key_it_listens_to_this_machine_alone(monkeypatch):
    monkeypatch.delenv("ADAPTERKIT_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="ADAPTERKIT_API_KEY"):
        build("base")
    with pytest.raises(ConfigError, match="ADAPTERKIT_API_KEY"):
        app({"base": "base"})
    build("base", settings=Settings())
    app({"base": "base", "host": "127.0.0.1"})


def test_arguments_of_serve_run(keys):
    assert app(
        {"base": "base", "replicas": "2", "adapters": "{cards: there}", "engine": {"max_batch": 4}, "drain": "3"}
    )
    with pytest.raises(ConfigError, match="replicas"):
        app({"base": "base", "replica": "2"})
    with pytest.raises(ConfigError, match="base: is required"):
        app({})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--replicas", "0"], "--replicas"),
        (["--replicas", "2", "--port", "0"], "--port"),
        (["--replicas", "2", "--max-batch", "0"], "--max-batch"),
        (["--replicas", "two"], "--replicas"),
    ],
)
def test_a_misuse_of_the_command_is_said_before_ray_starts(arguments, said, capsys, monkeypatch):
    import ray

    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("Ray was started"))
    assert main(["serve", str(EXAMPLE_BASE), "--no-store", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_without_the_packages_the_command_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "adapterkit.serving.ray", None)
    assert main(["serve", str(EXAMPLE_BASE), "--no-store", "--replicas", "2"]) == 2
    assert "adapterkit[ray]" in capsys.readouterr().err


def test_a_store_of_another_machine_is_refused(tmp_path, monkeypatch):
    nothing = {
        "base": "",
        "adapters": {},
        "base_name": "",
        "opening": {},
        "plugins": (),
        "engine": {},
        "max_adapters": 1,
    }
    recipe = Recipe(store=str(tmp_path), machine=this_machine(), settings=Settings(), **nothing)
    assert recipe.open_store().names() == []
    monkeypatch.setattr("adapterkit.serving.ray.options.BOOT_ID", tmp_path / "id")
    (tmp_path / "id").write_text("another-one\n")
    with pytest.raises(ConfigError, match="is of another machine"):
        recipe.open_store()


def test_no_key_is_sent_to_other_machines():
    import cloudpickle

    application = build("base", settings=Settings(host="0.0.0.0", keys=Keys.of(["user-key-1"], ["admin-key-1"])))
    sent = cloudpickle.dumps(application)
    assert b"user-key-1" not in sent
    assert b"admin-key-1" not in sent
