"""Who may call what: keys, hosts, sizes, names."""

import json

import httpx
import pytest

from adapterkit.errors import ConfigError
from adapterkit.serving.http import Keys, Settings, create_app
from adapterkit.serving.http.app import HIDDEN, ROUTES
from adapterkit.serving.http.gate import ACCESS

from .http_server import ADMIN, KEYS, USER, as_who, client_of, engine_of

CHAT = {"model": "cards", "messages": [{"role": "user", "content": "x"}], "max_tokens": 1}
MUTATING = [(method, path) for access, method, path, _ in ROUTES if access == "admin"]
READING = [(method, path) for access, method, path, _ in ROUTES if access == "user"]
HOSTILE = [
    *(
        "../x",
        "..",
        "/etc/passwd",
        "..%2f..%2fetc",
        "%2e%2e%2fx",
        "cards/../tone",
        "a" * 10_000,
        "ca\u0433ds",
        "\uff43ards",
    ),
    *(
        "cards%00",
        "cards\u200b",
        "CARDS",
        "con",
        "-rf",
        "~root",
        "C:\\x",
        "file:///etc/passwd",
        "hf://org/x",
        "cards@1",
        "sha256:00",
    ),
]


@pytest.fixture(scope="module")
def engine(example_base):
    with engine_of(example_base, max_length=256) as engine:
        yield engine


@pytest.fixture(scope="module")
def client(engine):
    with client_of(engine, keys=KEYS) as client:
        yield client


def told(response):
    """The error of a response; every one has this form."""
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert response.headers["x-request-id"]
    return error


def filled(path):
    return path.replace("{name}", "cards").replace("{alias}", "production").replace("{model:path}", "cards")


def test_every_route_says_who_may_call_it(engine):
    app = create_app(engine)
    assert len(app.routes) == len(ROUTES)
    assert {getattr(route.endpoint, ACCESS, None) for route in app.routes} == {"open", "user", "admin"}
    writing = [route for route in app.routes if route.methods - {"GET", "HEAD"}]
    assert {getattr(route.endpoint, ACCESS) for route in writing if "completions" not in route.path} == {"admin"}


def test_a_route_that_says_nothing_is_closed(engine):
    app = create_app(engine, Settings(keys=KEYS))
    app.add_api_route("/forgotten", lambda: "secret", methods=["GET"])
    app.mount("/files", lambda *_: None)
    from fastapi.testclient import TestClient

    with TestClient(app, base_url="http://localhost") as client:
        for path in ("/forgotten", "/files/x"):
            response = client.get(path, headers=as_who(ADMIN))
            assert (response.status_code, told(response)["code"]) == (403, "closed")


@pytest.mark.parametrize(("method", "path"), MUTATING)
@pytest.mark.parametrize(
    ("key", "status"), [("", 401), ("wrong", 401), (USER, 403), (f"{ADMIN}x", 401), (ADMIN[:-1], 401)]
)
def test_changing_takes_an_admins_key(client, engine, method, path, key, status):
    before = engine.catalogue.listed()
    response = client.request(method, filled(path), json={"name": "x", "source": "y"}, headers=as_who(key))
    assert response.status_code == status
    assert told(response)["code"] in ("invalid_api_key", "admin_key_needed")
    assert engine.catalogue.listed() == before


@pytest.mark.parametrize(("method", "path"), READING)
def test_reading_and_asking_take_a_key(client, method, path):
    for key, statuses in (("", {401}), ("wrong", {401}), (USER, {200, 400}), (ADMIN, {200, 400})):
        assert client.request(method, filled(path), headers=as_who(key)).status_code in statuses


@pytest.mark.parametrize("given", ["Basic eDp5", "Bearer", "bearer", f"Token {USER}", USER, "Bearer \xe9"])
def test_no_other_form_of_a_key_is_taken(client, given):
    response = client.get("/v1/models", headers={"authorization": given.encode("latin-1")})
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"


def test_keys_are_checked_before_the_body_is_read(client):
    response = client.post("/v1/adapters", content=b"{", headers={"content-type": "application/json"})
    assert response.status_code == 401


def test_only_health_is_open(client):
    assert client.get("/health").json() == {"status": "ok"}
    assert client.get("/ready").json() == {"status": "ready"}
    assert "adapterkit" in client.get("/").text


def test_without_an_admin_key_nothing_can_be_changed(engine):
    for keys in (Keys(), Keys.of([USER])):
        with client_of(engine, keys=keys) as client:
            for key in ("", "wrong", USER):
                response = client.delete("/v1/adapters/cards", headers=as_who(key))
                assert response.status_code == 403
                assert "ADAPTERKIT_ADMIN_KEY" in told(response)["message"]


def test_on_loopback_without_keys_anybody_here_may_ask(engine):
    with client_of(engine) as client:
        for key in ("", "whatever"):  # clients of OpenAI's API always send one
            assert client.post("/v1/chat/completions", json=CHAT, headers=as_who(key)).status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org", ""])
def test_beyond_this_machine_a_key_is_needed(engine, host):
    with pytest.raises(ConfigError, match="ADAPTERKIT_API_KEY"):
        create_app(engine, Settings(host=host, keys=Keys.of([], [ADMIN])))
    create_app(engine, Settings(host=host, keys=KEYS))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.0.0.7"])
def test_loopback_is_this_machine(engine, host):
    create_app(engine, Settings(host=host))


def test_keys_of_the_environment():
    settings = Settings.from_environment({"ADAPTERKIT_API_KEY": " a, b,", "ADAPTERKIT_ADMIN_KEY": "c"})
    roles = {key: settings.keys.caller(f"Bearer {key}".encode()).role for key in "abcd"}
    assert roles == {"a": "user", "b": "user", "c": "admin", "d": ""}
    assert "Keys()" in repr(settings)
    with pytest.raises(ConfigError, match="one of their own"):
        Settings.from_environment({"ADAPTERKIT_API_KEY": "a", "ADAPTERKIT_ADMIN_KEY": "a"})
    with pytest.raises(ConfigError) as caught:
        Settings.from_environment({"ADAPTERKIT_API_KEY": "s\u00e9cret"})
    assert "s\u00e9cret" not in str(caught.value)


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil", "", "[::2]:80"]
)
def test_another_sites_name_does_not_lead_here(client, host):
    for path in ("/v1/models", "/health"):
        response = client.get(path, headers={**as_who(USER), "host": host})
        assert (response.status_code, told(response)["code"]) == (400, "invalid_host")


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:1", "http://[", "http://[x]y"])
def test_pages_of_other_sites_may_not_ask(client, origin):
    response = client.post("/v1/chat/completions", json=CHAT, headers={**as_who(USER), "origin": origin})
    assert (response.status_code, told(response)["code"]) == (403, "cross_origin")
    assert "access-control-allow-origin" not in response.headers
    assert client.get("/health", headers={"origin": origin}).status_code == 403
    here = str(client.base_url).rstrip("/")
    assert client.post("/v1/chat/completions", json=CHAT, headers={**as_who(USER), "origin": here}).status_code == 200


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_never_a_path(client, engine, name, tmp_path):
    before = engine.catalogue.listed()
    headers = as_who(ADMIN)
    bodies = [
        ("/v1/adapters", {"name": name, "source": str(tmp_path)}),
        ("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(tmp_path)}),
        ("/v1/unload_lora_adapter", {"lora_name": name}),
        ("/v1/chat/completions", {**CHAT, "model": name}),
        ("/v1/completions", {"model": name, "prompt": "x", "max_tokens": 1}),
    ]
    for path, body in bodies:
        response = client.post(path, content=json.dumps(body), headers={**headers, "content-type": "application/json"})
        assert 400 <= response.status_code < 500
        assert len(told(response)["message"]) < 2001
    quoted = name if "%" in name else str(httpx.QueryParams({"x": name}))[2:].replace("+", "%20")
    for method, path in [
        ("DELETE", f"/v1/adapters/{quoted}"),
        ("POST", f"/v1/adapters/{quoted}/pin"),
        ("GET", f"/v1/models/{quoted}"),
    ]:
        assert 400 <= client.request(method, path, headers=headers).status_code < 500
    for alias in (quoted, "production"):
        moved = client.post(f"/v1/adapters/{quoted}/aliases/{alias}", json={"version": 1}, headers=headers)
        assert 400 <= moved.status_code < 500
    assert engine.catalogue.listed() == before


@pytest.mark.parametrize("name", ["x\x00", "x\ud800", "", 5, None, ["x"], {"a": 1}])
def test_a_name_that_is_no_text_is_refused(client, name):
    for path, field in (("/v1/completions", "model"), ("/v1/adapters", "name"), ("/v1/load_lora_adapter", "lora_name")):
        body = {"prompt": "x", "source": "/x", "lora_path": "/x", field: name}
        given = {**as_who(ADMIN), "content-type": "application/json"}
        response = client.post(path, content=json.dumps(body), headers=given)
        assert 400 <= response.status_code < 500
        told(response)


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b"[" * 100_000, b'{"model": NaN}', b"1" * 5000, b"{}"),
        json.dumps({**CHAT, "messages": [{"role": "user", "content": "x\ud800"}]}).encode(),
        json.dumps({**CHAT, "temperature": 10**400}).encode(),
        json.dumps({**CHAT, "seed": 2**70}).encode(),
        b'{"model": "cards", "prompt": "x", "temperature": Infinity}',
        *(
            b'{"model": "cards", "prompt": "x", "no": %s%s}' % (b"[" * deep, b"]" * deep)
            for deep in range(600, 1000, 20)
        ),
    ],
)
def test_a_body_that_is_not_as_it_should_be_is_a_clients_mistake(client, body):
    for path in ("/v1/chat/completions", "/v1/completions"):
        response = client.post(path, content=body, headers={**as_who(USER), "content-type": "application/json"})
        assert response.status_code == 400
        assert told(response)["type"] == "invalid_request_error"


def test_a_body_that_is_no_json_is_not_guessed_at(client):
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        response = client.post(
            "/v1/chat/completions", content=json.dumps(CHAT), headers={**as_who(USER), "content-type": kind}
        )
        assert response.status_code == 400


def test_large_bodies_are_refused_however_they_come(engine):
    with client_of(engine, max_body=4096) as client:
        whole = json.dumps({**CHAT, "user": "x" * 5000}).encode()
        response = client.post("/v1/chat/completions", content=whole, headers={"content-type": "application/json"})
        assert (response.status_code, "4,096" in told(response)["message"]) == (413, True)
        parts = (whole[start : start + 1000] for start in range(0, len(whole), 1000))
        response = client.post("/v1/chat/completions", content=parts, headers={"content-type": "application/json"})
        assert (response.status_code, "4,096" in told(response)["message"]) == (413, True)
        assert client.post("/v1/chat/completions", json=CHAT).status_code == 200


def test_what_is_not_there_and_what_it_does_not_take(client):
    assert told(client.get("/v1/nothing", headers=as_who(USER)))["code"] == "not_found"
    assert client.get("/docs").status_code == 404
    assert client.get("/v1/chat/completions", headers=as_who(USER)).status_code == 405
    assert client.put("/v1/models", headers=as_who(USER)).status_code == 405


def test_a_request_keeps_its_id_if_that_is_plain(client):
    given = {**as_who(USER), "x-request-id": "job-17.a"}
    assert client.get("/v1/models", headers=given).headers["x-request-id"] == "job-17.a"
    for bad in ("x" * 65, "a b", "a\tb", "<x>", ""):
        assert client.get("/health", headers={"x-request-id": bad}).headers["x-request-id"].startswith("req-")


def test_the_api_describes_itself(client):
    api = client.get("/openapi.json", headers=as_who(USER)).json()
    assert set(api["paths"]) == {path.replace(":path", "") for _, _, path, _ in ROUTES} - HIDDEN
    assert "security" in api["paths"]["/v1/adapters"]["post"]
