"""The page at ``/``, opened and used as somebody in front of it does."""

import re
from contextlib import contextmanager

import httpx

from .http_server import ADMIN, USER, as_who, listening

PROMPT = "I paid with my card, and the payment is still pending."
COLUMN = 'article[aria-label="Answer of {}"]'


@contextmanager
def opened(browser, engine, *, settings=None, refused=False, phone=False, before=lambda page: None):
    """The page of a server. At the end: nothing was asked of anybody else, no script failed, no policy was broken.

    ``refused`` says that the server refuses something on the way, which browsers write into the console.
    """
    size = {"width": 360, "height": 740} if phone else {"width": 1280, "height": 900}
    with listening(engine, **(settings or {})) as url:
        context = browser.new_context(viewport=size, has_touch=phone)
        context.set_default_timeout(20_000)
        page, asked, faults = context.new_page(), [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda told: faults.append(told.text) if told.type in ("error", "warning") else None)
        before(page)
        page.goto(f"{url}/")
        try:
            yield page, url
            assert asked
            assert all(one.startswith(f"{url}/") for one in asked)
            assert not any(key in one for one in asked for key in (USER, ADMIN))
            assert not [one for one in faults if not (refused and one.startswith("Failed to load resource"))]
            assert page.evaluate("localStorage.length + sessionStorage.length + document.cookie.length") == 0
        finally:
            context.close()


def choose(page, *names):
    page.get_by_role("checkbox").first.wait_for()
    for name in names:
        page.get_by_role("checkbox", name=name, exact=True).check()


def ask(page, prompt=PROMPT, most=12):
    page.get_by_label("Prompt").fill(prompt)
    page.get_by_label("Max tokens").fill(str(most))
    page.get_by_role("button", name="Ask", exact=True).click()


def wait_for_answers(page, count):
    page.locator("#said", has_text=re.compile(rf"^{count} answers? in ")).wait_for()


def column(page, model):
    return page.locator(COLUMN.format(model))


def text_of(page, model):
    return column(page, model).locator(".text").text_content()


def answer_of(url, model, most=12, key=""):
    """What the API answers, all at once."""
    body = {"model": model, "messages": [{"role": "user", "content": PROMPT}], "max_tokens": most, "temperature": 0}
    response = httpx.post(f"{url}/v1/chat/completions", json=body, headers=as_who(key), timeout=60)
    return response.json()["choices"][0]["message"]["content"]


def row(page, name):
    return page.locator("#list li", has=page.get_by_role("checkbox", name=name, exact=True))
