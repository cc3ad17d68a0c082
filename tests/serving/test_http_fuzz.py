"""Whatever is sent, the server does not fail, and lets nobody do what is not theirs: requests drawn from its own description."""

import json

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error

from adapterkit import Store
from adapterkit.serving.http import Settings, create_app
from adapterkit.serving.http.app import HIDDEN, ROUTES
from tests.support import make_adapter

from .http_server import ADMIN, KEYS, USER, as_who, engine_of

OPERATIONS = [(access, method, path.replace(":path", "")) for access, method, path, _ in ROUTES if path not in HIDDEN]
ANSWERING = [path for _, method, path in OPERATIONS if path.endswith("completions")]
SAID = {"message", "type", "param", "code"}
MODELS = st.sampled_from(["base", "cards", "tone", "cards+tone", "cards*0.7+tone*-0.3", "kept@1", "kept@production"])
OFTEN = settings(max_examples=150, suppress_health_check=list(HealthCheck), deadline=None)
SELDOM = settings(OFTEN, max_examples=8)


@pytest.fixture(scope="module")
def engine(example_base, tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("store"))
    for seed in (5, 6):
        store.add(make_adapter(example_base, seed=seed), "kept")
    store.promote("kept@1", "production")
    with engine_of(example_base, store=store, max_length=48) as engine:
        yield engine


@pytest.fixture(scope="module")
def described(engine):
    app = create_app(engine, Settings(keys=KEYS))
    return schemathesis.openapi.from_asgi("/openapi.json", app, headers=headers_of(ADMIN))


def headers_of(key):
    return {**as_who(key), "host": "localhost"}


def fuzz(described, method, path, key, how, *, prepare=None, check=lambda _: None):
    """Send requests that are drawn; each answer is no failure, and each refusal is written as all are."""

    @given(case=described[path][method].as_strategy(), data=st.data())
    @how
    def ask(case, data):
        if prepare is not None:
            prepare(case, data)
        response = case.call(headers=headers_of(key))
        case.validate_response(response, checks=[not_a_server_error])
        assert response.headers["x-request-id"]
        if response.status_code >= 400:
            assert set(json.loads(response.content)["error"]) == SAID
        check(response)

    ask()


def as_it_is_known(case, data):
    """What is drawn, with names that are served: it comes further than one that nothing answers to."""
    if isinstance(case.body, dict):
        known = {
            "model": MODELS,
            "name": st.sampled_from(["new", "kept", "cards"]),
            "lora_name": st.sampled_from(["new", "kept", "cards"]),
            "source": st.sampled_from(["kept@1", "kept@2", "kept"]),
            "lora_path": st.sampled_from(["kept@1", "kept@2", "kept"]),
            "version": st.sampled_from([1, 2, 3]),
        }
        for name in known.keys() & case.body.keys():
            case.body[name] = data.draw(known[name])
        if "model" in case.body:  # as few as say whether it works
            case.body["max_tokens"] = case.body["max_completion_tokens"] = 2
            if "messages" not in case.body:
                del case.body["max_completion_tokens"]
    known = {"name": st.sampled_from(["kept", "cards", "new"]), "alias": st.just("production"), "model": MODELS}
    for name in known.keys() & (case.path_parameters or {}).keys():
        case.path_parameters[name] = data.draw(known[name])


@pytest.mark.parametrize(("access", "method", "path"), OPERATIONS)
def test_nothing_that_is_sent_makes_it_fail(described, access, method, path):
    fuzz(described, method, path, ADMIN, SELDOM)


@pytest.mark.parametrize("path", ANSWERING)
def test_nothing_that_is_asked_of_an_adapter_makes_it_fail(described, path):
    fuzz(described, "POST", path, USER, SELDOM, prepare=as_it_is_known)


@pytest.mark.slow
@pytest.mark.parametrize("prepare", [None, as_it_is_known], ids=["any name", "known names"])
@pytest.mark.parametrize(("access", "method", "path"), OPERATIONS)
def test_nothing_that_is_sent_makes_it_fail_at_length(described, access, method, path, prepare):
    fuzz(described, method, path, ADMIN, OFTEN, prepare=prepare)


@pytest.mark.slow
@pytest.mark.parametrize("prepare", [None, as_it_is_known], ids=["any name", "known names"])
@pytest.mark.parametrize("key", ["", "wrong", USER], ids=["no key", "a wrong key", "a user's key"])
@pytest.mark.parametrize(("access", "method", "path"), OPERATIONS)
def test_nobody_does_what_is_not_theirs(described, engine, access, method, path, key, prepare):
    before, entries = engine.catalogue.listed(), engine.catalogue.store.history()

    def check(response):
        if access == "open":
            assert response.status_code == 200
        elif key != USER:
            assert response.status_code == 401
        elif access == "admin":
            assert response.status_code == 403
        else:
            assert response.status_code not in (401, 403)

    fuzz(described, method, path, key, SELDOM if key != USER else OFTEN, prepare=prepare, check=check)
    assert engine.catalogue.listed() == before
    assert engine.catalogue.store.history() == entries
