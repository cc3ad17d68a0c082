"""Killed as `kill -9` does, in the middle of requests and changes: what was agreed to is there after a restart."""

import contextlib
import itertools
import random
import threading

import httpx
import pytest

from adapterkit import Store
from benchmarks.soaking.library import DTYPE, Library
from benchmarks.soaking.server import ADMIN, Process
from benchmarks.soaking.truth import Truth

NAMES = ("cards", "tone", "mail", "sql")
VERSIONS = 3
GUESTS = ("guest-0", "guest-1", "guest-2")
PROMPT = "The card"
TOKENS = 8
OPTIONS = ("--max-batch", "4", "--kv-memory", "2MB", "--adapter-memory", "2MB", "--dtype", DTYPE)


class Rounds:
    """A store that several servers have had, one after the other."""

    def __init__(self, folder):
        self.folder, self.library, self.truth = folder, Library(), Truth()
        self.store, self.uploads = Store(folder / "store"), folder / "uploads"
        self.uploads.mkdir()
        self.fresh = itertools.count(100)
        self.texts = {}
        self.numbers = {name: [place * 8 + version for version in range(VERSIONS)] for place, name in enumerate(NAMES)}
        for name, numbers in self.numbers.items():
            for number in numbers:
                self.store.add(self.library.made(number), name)
            self.store.promote(f"{name}@1", "production")
            self.truth.settled(f"{name}@production", numbers[0])
        for name in GUESTS:
            self.truth.settled(name, None)

    def text(self, number):
        if number not in self.texts:
            self.texts[number] = self.library.answer(((number, 1.0),), PROMPT, is_chat=False, tokens=TOKENS).strip()
        return self.texts[number]

    @contextlib.contextmanager
    def served(self):
        options = [*OPTIONS, "--allow-source", str(self.uploads)]
        headers = {"authorization": f"Bearer {ADMIN}"}
        with (
            Process(self.folder / "store", self.folder / "log", options) as process,
            httpx.Client(base_url=process.url, headers=headers, timeout=60) as client,
        ):
            yield process, client

    def check(self, client):
        """Each name means what was agreed to, or what was being changed when the server was killed; and answers as that does."""
        assert client.get("/ready").json() == {"status": "ready"}
        for name in (*(f"{name}@production" for name in NAMES), *GUESTS):
            possible = self.truth.possible(name, float("inf"), float("inf"))
            body = {"model": name, "prompt": PROMPT, "max_tokens": TOKENS, "temperature": 0}
            response = client.post("/v1/completions", json=body)
            if response.status_code == 404:
                assert None in possible, (name, possible, response.text)
                self.truth.settled(name, None)
                continue
            assert response.status_code == 200, response.text
            digests = {self.library.digest(((number, 1.0),)): number for number in possible - {None}}
            digest = response.headers["x-adapterkit-digest"]
            assert digest in digests, (name, possible)
            assert response.json()["choices"][0]["text"].strip() == self.text(digests[digest])
            self.truth.settled(name, digests[digest])

    def change(self, client, chance):
        """One change; it is known to be done once the server has said so."""
        if chance.random() < 0.7:
            name = chance.choice(NAMES)
            number = chance.choice(self.numbers[name])
            change = self.truth.begin(f"{name}@production", number)
            body = {"version": self.numbers[name].index(number) + 1}
            response = client.post(f"/v1/adapters/{name}/aliases/production", json=body)
        else:
            name = chance.choice(GUESTS)
            if self.truth.now(name) is not None and chance.random() < 0.4:
                change = self.truth.begin(name, None)
                response = client.delete(f"/v1/adapters/{name}")
            else:
                number = next(self.fresh) * 8
                folder = self.library.save(number, self.uploads / str(number))
                change = self.truth.begin(name, number)
                response = client.post("/v1/adapters", json={"name": name, "source": str(folder), "replace": True})
        assert response.status_code == 200, response.text
        self.truth.agreed(change)

    def kill_amid(self, process, client, chance):
        """Ask and change until the server is gone; how many changes were agreed to."""
        agreed, failures = [], []

        def until_killed(work):
            try:
                while True:
                    work()
            except httpx.TransportError:
                pass
            except Exception as error:  # noqa: BLE001 - raised below
                failures.append(error)

        def ask():
            model = f"{chance.choice(NAMES)}@{chance.randrange(VERSIONS) + 1}"
            body = {"model": model, "prompt": PROMPT, "max_tokens": 64}
            assert client.post("/v1/completions", json=body).status_code == 200

        def change():
            self.change(client, chance)
            agreed.append(1)

        threads = [threading.Thread(target=until_killed, args=(work,)) for work in (ask, ask, change)]
        for thread in threads:
            thread.start()
        threads[0].join(chance.uniform(0.2, 1.2))
        process.kill()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
        assert failures == []
        return len(agreed)


def go_round(folder, rounds):
    mine = Rounds(folder)
    agreed = 0
    for number in range(rounds):
        with mine.served() as (process, client):
            mine.check(client)
            agreed += mine.kill_amid(process, client, random.Random(number))
    with mine.served() as (process, client):
        mine.check(client)
        assert process.stop() in (0, -15)
        assert process.errors() == []
    assert agreed
    checked = mine.store.verify()
    assert not checked.problems, checked


@pytest.mark.slow
def test_what_was_agreed_to_outlives_being_killed(tmp_path):
    go_round(tmp_path, 8)
