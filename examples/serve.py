"""Adapters behind one server: asked with OpenAI's client, all in one batch, streamed, blended; an alias moved and moved back.

The server listens at a free port of this machine for as long as the script runs; ``adapterkit serve examples/base`` is the same
for good. Needs ``pip install "adapterkit[serve]" openai httpx``.
"""

import csv
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
from openai import OpenAI

from adapterkit import Base, Engine, Store
from adapterkit.serving.http import Keys, Settings, listening

HERE = Path(__file__).parent
SPAM = {"prompt": "SMS", "completion": "Label"}
INTENTS = {"card_arrival", "lost_or_stolen_card", "exchange_rate", "change_pin", "top_up_failed", "atm_support"}
OFFER = "URGENT! You have won a 1 week FREE membership in our £100,000 prize draw. Call 09061701461"
QUESTION = "I'm still waiting on my new card, when will it be here?"
ALIAS = "/v1/adapters/guard/aliases/production"


def train(base: Base, store: Store) -> list[dict[str, str]]:
    """Two adapters into the store, one of them in two versions; gives messages that they have not seen."""
    with (HERE / "data/banking77/train.csv").open(encoding="utf-8") as file:
        asked = [{"prompt": row["text"], "completion": row["category"]} for row in csv.DictReader(file)]
    with (HERE / "data/sms_spam.tsv").open(encoding="utf-8") as file:
        messages = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    few = [row for row in asked if row["completion"] in INTENTS]
    cards = base.train(few, rank=8, learning_rate=3e-3, max_steps=40)
    print(store.add(cards, "cards", why=f"{len(INTENTS)} kinds of questions to a bank"))
    for steps in (10, 40):
        guard = base.train(messages[:-100], columns=SPAM, rank=8, learning_rate=3e-3, max_steps=steps)
        print(store.add(guard, "guard", why=f"spam or not, {steps} steps"))
    store.promote("guard@1", "production")
    return messages[-100:]


def main(folder: Path) -> None:
    base, store = Base(HERE / "base"), Store(folder)
    held_out = train(base, store)
    settings = Settings(port=0, keys=Keys.of(["user-key"], ["admin-key"]))
    with Engine(base, store=store) as engine, listening(engine, settings) as url:
        client = OpenAI(base_url=f"{url}/v1", api_key="user-key")
        admin = httpx.Client(base_url=url, headers={"authorization": "Bearer admin-key"}, timeout=60)

        def ask(model: str, text: str) -> str:
            turns = [{"role": "user", "content": text}]
            said = client.chat.completions.create(model=model, messages=turns, temperature=0, max_tokens=16)
            return said.choices[0].message.content or ""

        # one server, one base: a request's model is the adapter that answers it
        print("served:", *(model.id for model in client.models.list()))
        for model in ("base", "cards", "guard@2", "cards*0.6+guard*0.4"):
            print(f"  {model:20} {ask(model, QUESTION)!r:25} {ask(model, OFFER)!r}")

        # the text as it is made
        turns = [{"role": "user", "content": QUESTION}]
        stream = client.chat.completions.create(model="cards", messages=turns, temperature=0, stream=True)
        pieces = [chunk.choices[0].delta.content for chunk in stream]
        print("streamed:", *(repr(piece) for piece in pieces if piece))

        # many clients at once, each with an adapter of its own: they share the batch
        models = ["cards", "guard@1", "guard@2", "base"]
        with ThreadPoolExecutor(32) as clients:
            start = time.perf_counter()
            asked = [(models[n % len(models)], row["SMS"]) for n, row in enumerate(held_out)]
            list(clients.map(ask, *zip(*asked, strict=True)))
            print(f"{len(asked)} requests for {len(models)} models: {time.perf_counter() - start:.1f} s")

            # an alias moves for new requests, and back
            def accuracy() -> str:
                answers = clients.map(ask, ["guard@production"] * len(held_out), [row["SMS"] for row in held_out])
                return f"{sum(map(str.__eq__, answers, [row['Label'] for row in held_out])) / len(held_out):.1%}"

            print("guard@production is version 1:", accuracy())
            moved = admin.post(ALIAS, json={"version": 2, "why": "trained for longer"}).raise_for_status().json()
            print(f"moved to version {moved['version']}:", accuracy())
            back = admin.post(f"{ALIAS}/rollback", json={"why": "a customer complained"}).raise_for_status().json()
            print(f"back at version {back['version']}:", accuracy())
    for entry in store.history("guard@production"):
        print(f"  {entry.action:8} {entry.before or '-':8} -> {entry.after}  {entry.why}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary))
