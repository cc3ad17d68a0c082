"""Versions of an adapter: kept in a store, promoted, rolled back, published on a Hub, pulled by a colleague.

The Hub runs on this machine for as long as the script does. With ``--to hf://you/guard`` it is the real one (log in first).
"""

import argparse
import csv
import os
import tempfile
from pathlib import Path
from typing import Any

from adapterkit import Base, Store, publish, pull
from adapterkit.publishing import revisions
from adapterkit.testing.hub import Hub

HERE = Path(__file__).parent
SPAM = {"columns": {"prompt": "SMS", "completion": "Label"}}
ABOUT: dict[str, Any] = {"license": "apache-2.0", "base_model": "org/small-base", "language": ["en"]}


def main(url: str, folder: Path) -> None:
    with (HERE / "data/sms_spam.tsv").open(encoding="utf-8") as file:
        messages = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    known, held_out = messages[:-300], messages[-300:]
    base, store = Base(HERE / "base"), Store(folder / "store")

    # two versions, each with its scores on rows that it has not seen
    for steps in (10, 40):
        guard = base.train(known, **SPAM, rank=8, learning_rate=3e-3, max_steps=steps)
        scores = base.evaluate(held_out, adapter=guard, **SPAM)
        version = store.add(guard.with_evaluation(scores, "SMS spam, 300 messages"), "guard", why=f"{steps} steps")
        store.promote(version, "production", why=f"accuracy {scores['accuracy']:.1%}")
        print(f"{version} is in production: accuracy {scores['accuracy']:.1%}")

    # back in one call, and the journal knows who, when and why
    print("rolled back to", store.rollback("guard@production", why="a customer complained"))
    for entry in store.history("guard@production"):
        print(f"  {entry.action:8} {entry.before or '-'} -> {entry.after}  {entry.why}")

    # publish both; a tag is a version, and each file is read back
    for number in (1, 2):
        print("published", publish(f"guard@{number}", url, tag=f"v{number}", store=store, **ABOUT))
    for one in revisions(url):
        print(f"  {one.id[:12]} {', '.join(one.tags)}")

    # elsewhere: the same adapter, by its digest
    elsewhere = Store(folder / "elsewhere")
    pulled = pull(f"{url}@v2", store=elsewhere)
    print("pulled", pulled, "from", pulled.origin[:-28], "…", pulled.digest == store.resolve("guard@2").digest)
    offer = "URGENT! You have won a 1 week FREE membership in our £100,000 prize draw. Call 09061701461"
    print("it says:", base.generate(offer, adapter=elsewhere.load(pulled)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--to", default="", help="where to publish: hf://you/guard; a Hub of this script's own without it"
    )
    to = parser.parse_args().to
    with tempfile.TemporaryDirectory() as temporary:
        if to:
            main(to, Path(temporary))
        else:
            with Hub() as hub:
                os.environ.update(hub.environment())
                main("hf://org/guard", Path(temporary))
