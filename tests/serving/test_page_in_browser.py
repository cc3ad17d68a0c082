"""The page at ``/``, in a browser: what it shows is what the API says, nothing leaves the server, and keys stay in memory."""

import json
import re
import shutil
from functools import partial

import pytest

from adapterkit import Store
from adapterkit.serving import Engine
from adapterkit.serving.http import Keys
from adapterkit.serving.metrics import Metrics
from tests.support import make_adapter

from .browsing import PROMPT, answer_of, ask, choose, column, opened, row, text_of, wait_for_answers
from .engines import until
from .http_server import ADMIN, KEYS, USER, engine_of

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HOSTILE = "<img src=x onerror=\"document.title='hacked'\"><script>document.title='hacked'</script>"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on this machine")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def store(tmp_path, example_base):
    """Two versions of ``mail``, and none that an alias points at."""
    store = Store(tmp_path / "store")
    for seed in (5, 6):
        store.add(make_adapter(example_base, seed=seed), "mail")
    return store


def test_answers_stream_side_by_side_and_are_what_the_api_answers(browser, example_base):
    with engine_of(example_base, max_length=256) as engine, opened(browser, engine) as (page, url):
        choose(page, "cards", "tone")
        assert row(page, "tone").locator(".place").text_content() == "not loaded"
        page.evaluate(
            """window.seen = []; new MutationObserver(() => window.seen.push(
                 document.querySelector('article[aria-label="Answer of cards"] .text').textContent)
               ).observe(document.querySelector("#answers"), { subtree: true, childList: true, characterData: true })"""
        )
        ask(page, most=24)
        wait_for_answers(page, 3)
        shown = {model: text_of(page, model) for model in ("base", "cards", "tone")}
        assert shown == {model: answer_of(url, model, 24) for model in shown}
        assert len(set(shown.values())) == 3
        seen = set(page.evaluate("window.seen"))
        assert len(seen) > 5  # it came in pieces, each of which went on from the last
        assert all(shown["cards"].startswith(one) for one in seen)
        digest = engine.catalogue.resolve("cards").digest
        assert column(page, "cards").locator("code").text_content() == digest[:12]
        assert re.search(r"first token .+tokens/s24 tokens", column(page, "cards").locator(".figures").text_content())
        row(page, "tone").locator(".place", has_text="device").wait_for()
        throughput = page.get_by_role("img", name=re.compile("^Throughput now"))
        throughput.wait_for()
        assert page.locator(".memory dd").first.text_content().startswith("2 · ")


def test_stop_gives_the_requests_up(browser, example_base):
    with engine_of(example_base, max_length=1024) as engine, opened(browser, engine) as (page, _):
        choose(page, "cards")
        page.get_by_label("Go on from the text as it is").check()
        ask(page, most=900)
        until(lambda: len(text_of(page, "cards")) > 80)  # more than five tokens have
        assert engine.stats().running
        page.get_by_role("button", name="Stop").click()
        assert column(page, "cards").locator(".status").text_content() == "stopped"
        until(lambda: not engine.stats().running)
        assert b'adapterkit_requests_total{adapter="cards",outcome="cancelled"} 1.0' in engine.watcher.text()
        kept = text_of(page, "cards")
        ask(page, most=5)  # and it can be asked again
        wait_for_answers(page, 2)
        assert text_of(page, "cards") != kept


def test_an_alias_moves_and_rolls_back(browser, example_base, store):
    store.promote("mail@1", "production")
    with (
        engine_of(example_base, store=store, max_length=256) as engine,
        opened(browser, engine, settings={"keys": Keys.of([], [ADMIN])}, refused=True) as (page, url),
    ):
        choose(page)
        page.get_by_label("Any other model").fill("mail@production")
        page.get_by_role("button", name="Add").click()
        one, two = answer_of(url, "mail@1"), answer_of(url, "mail@2")
        assert one != two

        def shown():
            ask(page)
            wait_for_answers(page, 3)  # the base, the first adapter, and this
            return text_of(page, "mail@production")

        assert shown() == one
        page.get_by_role("button", name="Versions of mail").click()
        dialog = page.get_by_role("dialog", name="mail")
        rows = dialog.locator("#versions-rows tr")
        assert [cell.strip() for cell in rows.nth(1).locator("th, td").all_text_contents()] == [
            "1",
            "device",
            "production",
            "",
        ]
        said = dialog.locator("#versions-said")
        dialog.get_by_label("Alias", exact=True).fill("production")
        dialog.get_by_label("To version").select_option("2")
        dialog.get_by_role("button", name="Move", exact=True).click()
        said.filter(has_text="a key is needed").wait_for()
        dialog.get_by_label("Admin key").fill("not-the-key")
        dialog.get_by_role("button", name="Move", exact=True).click()
        said.filter(has_text="Not let in: the key is not known.").wait_for()
        assert page.evaluate("document.activeElement.id") == "admin-key"
        assert store.resolve("mail@production").number == 1
        dialog.get_by_label("Admin key").fill(ADMIN)
        dialog.get_by_label("Why").fill("better")
        dialog.get_by_role("button", name="Move", exact=True).click()
        said.filter(has_text="production points at version 2 now.").wait_for()
        assert store.history("mail@production")[-1].why == "better"
        dialog.locator("#aliases-rows tr", has_text="production2").wait_for()
        page.keyboard.press("Escape")
        assert shown() == two
        page.get_by_role("button", name="Versions of mail").click()
        dialog.get_by_role("button", name="Roll production back").click()
        said.filter(has_text="production points at version 1 now.").wait_for()
        dialog.get_by_role("button", name="Close").click()
        assert shown() == one


def test_an_alias_that_somebody_else_has_moved_is_left_alone(browser, example_base, store):
    store.promote("mail@1", "production")
    with (
        engine_of(example_base, store=store, max_length=64) as engine,
        opened(browser, engine, settings={"keys": Keys.of([], [ADMIN])}, refused=True) as (page, _),
    ):
        choose(page)
        page.get_by_role("button", name="Versions of mail").click()
        dialog = page.get_by_role("dialog", name="mail")
        dialog.get_by_label("Admin key").fill(ADMIN)
        store.promote("mail@2", "production")  # behind the page's back
        with page.expect_response("**/rollback") as answered:
            dialog.get_by_role("button", name="Roll production back").click()
        assert answered.value.status == 409
        dialog.locator("#versions-said", has_text="Moved meanwhile").wait_for()
        dialog.locator("#aliases-rows tr", has_text="production2").wait_for()  # and it shows where it points
        assert store.resolve("mail@production").number == 2


@pytest.mark.parametrize("has_store", [True, False])
def test_an_adapter_without_versions_says_why(browser, example_base, store, has_store):
    with (
        engine_of(example_base, store=store if has_store else None, max_length=64) as engine,
        opened(browser, engine) as (page, _),
    ):
        choose(page)
        page.get_by_role("button", name="Versions of cards").click()
        why = "is not in the store" if has_store else "this server was started without one"
        page.get_by_role("dialog", name="cards").get_by_text(why).wait_for()
        assert not page.get_by_role("button", name="Move", exact=True).is_visible()


def test_a_key_is_asked_for_and_kept_in_memory_only(browser, example_base):
    with (
        engine_of(example_base, max_length=64) as engine,
        opened(browser, engine, settings={"keys": KEYS}, refused=True) as (page, url),
    ):
        page.get_by_text("This server asks for an API key.").wait_for()
        field = page.get_by_label("API key", exact=True)
        field.fill("wrong")
        page.get_by_role("button", name="Use it").click()
        page.get_by_text("The server does not know this API key.").wait_for()
        field.fill(USER)
        field.press("Enter")
        choose(page, "cards")
        assert not page.locator("#notice").is_visible()
        assert field.input_value() == ""
        assert page.url == f"{url}/"
        page.reload()
        page.get_by_text("This server asks for an API key.").wait_for()


def test_what_the_server_says_is_never_html(browser, example_base):
    answer = [HOSTILE[:20], HOSTILE[20:]]
    chunks = [json.dumps({"choices": [{"delta": {"content": part}}]}) for part in answer]
    events = "".join(f"data: {chunk}\n\n" for chunk in chunks)
    forged = {
        "name": HOSTILE,
        "digest": "",
        "method": HOSTILE,
        "bytes": 1,
        "aliases": {HOSTILE: "x@1"},
        "versions": [1],
    }
    forged |= {"tiers": [], "version_tiers": {}, "pinned": False, "users": 0}
    listed = json.dumps({"object": "list", "data": [forged]})

    def forge(page):
        page.route("**/v1/adapters", lambda route: route.fulfill(body=listed, content_type="application/json"))
        page.route(
            "**/v1/chat/completions",
            lambda route: route.fulfill(body=f"{events}data: [DONE]\n\n", content_type="text/event-stream"),
        )

    with engine_of(example_base, max_length=64) as engine, opened(browser, engine, before=forge) as (page, _):
        choose(page, HOSTILE)
        ask(page)
        wait_for_answers(page, 2)
        assert page.locator("article .text").all_text_contents() == [HOSTILE, HOSTILE]
        assert page.locator("article h3").all_text_contents() == ["base", HOSTILE]
        page.get_by_role("button", name="Versions of").click()
        page.get_by_role("dialog").wait_for()
        assert page.locator("#aliases-rows th").all_text_contents() == [HOSTILE]
        assert page.locator("img, main script, dialog script").count() == 0
        assert page.title() == "adapterkit"


def test_what_goes_wrong_is_said(browser, example_base):
    chunk = 'data: {"choices": [{"delta": {"content": "The begin"}}]}\n\n'
    busy = '{"error": {"message": "7 requests wait already", "type": "x", "param": null, "code": "y"}}'
    plain = {"content_type": "application/json"}
    failed = 'data: {"error": {"message": "the adapter cannot be loaded", "type": "x", "param": null, "code": "y"}}\n\n'
    cases = [
        (
            {"status": 429, "body": busy, "headers": {"retry-after": "3"}, **plain},
            "Busy: 7 requests wait already. Try again in 3 s.",
        ),
        ({"status": 404, "body": busy, **plain}, "Not found: 7 requests wait already."),
        ({"status": 502, "body": "<h1>Bad gateway</h1>"}, "The server answered 502 Bad Gateway."),
        ({"body": chunk, "content_type": "text/event-stream"}, "The connection ended before the answer was whole."),
        ({"body": chunk + failed, "content_type": "text/event-stream"}, "The adapter cannot be loaded."),
        ({"body": chunk + "data: {\n\n", "content_type": "text/event-stream"}, "What came is no part of an answer."),
    ]

    def fulfil(answer, route):
        route.fulfill(**answer)

    with engine_of(example_base, max_length=64) as engine, opened(browser, engine, refused=True) as (page, _):
        choose(page)
        column(page, "cards").get_by_role("button", name="Leave out cards").click()
        for answer, said in cases:
            page.route("**/v1/chat/completions", partial(fulfil, answer))
            ask(page)
            column(page, "base").locator(".problem").get_by_text(said, exact=True).wait_for()
            assert text_of(page, "base") == ("The begin" if chunk in answer["body"] else "")
            assert page.get_by_role("button", name="Stop").get_attribute("aria-disabled") == "true"
            page.unroute("**/v1/chat/completions")
        page.route("**/v1/**", lambda route: route.abort())
        page.get_by_text("The server cannot be reached. This page keeps trying.").wait_for()
        page.unroute("**/v1/**")
        page.locator('#state[data-state="ready"]').wait_for()
        assert not page.locator("#notice").is_visible()


def test_a_keyboard_is_enough(browser, example_base, store):
    store.promote("mail@1", "production")
    store.promote("mail@2", "production")
    with (
        engine_of(example_base, store=store, max_length=256) as engine,
        opened(browser, engine, settings={"keys": Keys.of([], [ADMIN])}) as (page, url),
    ):
        page.get_by_role("checkbox").first.wait_for()
        press = page.keyboard.press

        def focused():
            return page.evaluate("document.activeElement.getAttribute('aria-label') ?? document.activeElement.id")

        def tab_to(name):
            for _ in range(60):
                press("Tab")
                outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
                is_past_the_end = page.evaluate("document.activeElement === document.body")
                assert is_past_the_end or outline != "none", f"nobody sees that {focused()!r} has the focus"
                if focused() == name:
                    return
            pytest.fail(f"the keyboard does not lead to {name}")

        press("Tab")
        press("Enter")  # the skip link
        assert focused() == "prompt"
        page.keyboard.type(PROMPT)
        press("Control+Enter")
        wait_for_answers(page, 2)
        assert text_of(page, "base") == answer_of(url, "base", 128)
        page.reload()
        page.get_by_role("checkbox").first.wait_for()
        tab_to("Filter the adapters")
        page.keyboard.type("mail")
        until(lambda: page.locator("#count").text_content() == "1 of 3 adapters")
        tab_to("Versions of mail")
        press("Enter")
        tab_to("Compare mail@2")
        press("Space")
        tab_to("admin-key")
        page.keyboard.type(ADMIN)
        for _ in range(20):
            press("Shift+Tab")
            if focused() == "Roll production back":
                break
        press("Enter")
        page.locator("#versions-said", has_text="production points at version 1 now.").wait_for()
        page.locator("#aliases-rows tr", has_text="production1").wait_for()
        assert focused() == "Roll production back"  # where it was, though the table is new
        press("Escape")
        assert focused() == "Versions of mail"
        assert column(page, "mail@2").is_visible()


def test_everything_has_a_name_for_who_cannot_see_it(browser, example_base, store):
    with engine_of(example_base, store=store, max_length=64) as engine, opened(browser, engine) as (page, _):
        choose(page)
        page.get_by_role("button", name="Versions of mail").click()
        nameless = page.evaluate(
            """[...document.querySelectorAll("button, input, select, textarea, svg, dialog, section")].filter((one) => {
                 const by = document.getElementById(one.getAttribute("aria-labelledby")) ?? one.labels?.[0];
                 const own = one.tagName === "BUTTON" ? one.textContent : "";
                 return !(one.getAttribute("aria-label") || by?.textContent || own).trim();
               }).map((one) => one.outerHTML)"""
        )
        assert nameless == []
        assert page.locator("article .text").first.get_attribute("aria-live") == "polite"
        assert page.locator("h1").count() == 1


def test_a_phone_scrolls_in_one_direction(browser, example_base, store):
    adapters = {f"{'long-name-' * 8}{number:03}": make_adapter(example_base, seed=1) for number in range(3)}
    with (
        Engine(example_base, adapters, store=store, watcher=Metrics(), max_length=256) as engine,
        opened(browser, engine, phone=True) as (page, _),
    ):

        def is_narrow():
            return page.evaluate("document.documentElement.scrollWidth <= innerWidth")

        choose(page, *adapters)
        ask(page)
        wait_for_answers(page, 4)
        assert is_narrow()
        page.get_by_role("button", name="API key").tap()
        assert is_narrow()
        page.get_by_role("button", name="Versions of mail").tap()
        page.get_by_role("dialog").wait_for()
        assert page.evaluate(
            "document.querySelector('dialog').scrollWidth <= document.querySelector('dialog').clientWidth"
        )
        assert is_narrow()


def test_two_hundred_adapters_are_filtered(browser, example_base):
    adapter = make_adapter(example_base, seed=1)
    adapters = {f"team-{number % 7}-adapter-{number:03}": adapter for number in range(200)}
    with Engine(example_base, adapters, max_length=64) as engine, opened(browser, engine) as (page, _):
        choose(page)
        page.locator("#count", has_text="200 adapters").wait_for()
        assert page.locator("#list").evaluate("list => list.scrollHeight > list.clientHeight")
        page.get_by_label("Filter the adapters").fill("team-3")
        page.locator("#count", has_text="29 of 200 adapters").wait_for()
        assert page.locator("#list li:visible").count() == 30  # and the base
        page.get_by_label("Filter the adapters").fill("")
        page.locator("#count", has_text="200 adapters").wait_for()
