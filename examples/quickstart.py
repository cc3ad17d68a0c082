"""One small base, a few adapters, real data, two CPU cores: train, merge, swap, mix, save, reload. Run it with `make demo`."""

import csv
import json
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from adapterkit import Base, merge

HERE = Path(__file__).parent
OUT = HERE.parent / "out" / "quickstart"
INTENTS = {"prompt": "text", "completion": "category"}  # which column is the question, which the answer
SPAM = {"prompt": "SMS", "completion": "Label"}
FAST = {"rank": 8, "alpha": 32.0, "batch_size": 32, "learning_rate": 4e-3, "adam_beta1": 0.7, "adam_beta2": 0.95}

base = Base(HERE / "base")  # 8 million parameters; frozen, shared, and loaded when it is first needed

# Train: 77 kinds of questions to a bank; then spam, two adapters with a thousand messages each. Each is 4% of the base's size.
cards = base.train(HERE / "data/banking77/train.csv", columns=INTENTS, output=OUT / "cards", **FAST)
with (HERE / "data/sms_spam.tsv").open(encoding="utf-8") as file:
    messages = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
held_out = messages[::5]
known = [row for n, row in enumerate(messages) if n % 5]
one = base.train(known[:1000], columns=SPAM, output=OUT / "one", **FAST)
two = base.train(known[1000:2000], columns=SPAM, output=OUT / "two", **FAST)

# Merge: what the two learned becomes one adapter, without the base.
spam = merge([one, two], strategy="soup")
spam.save(OUT / "merged")

# Evaluate on rows that neither has seen, beside the base alone: the whole generated answer must be the label.
scores = {
    "Banking77 (77 intents)": base.evaluate(HERE / "data/banking77/test.csv", adapter=cards, columns=INTENTS),
    "SMS spam, one half learned": base.evaluate(held_out, adapter=one, columns=SPAM, compare=False),
    "SMS spam, the other half": base.evaluate(held_out, adapter=two, columns=SPAM, compare=False),
    "SMS spam, both merged": base.evaluate(held_out, adapter=spam, columns=SPAM),
}

# Swap: one assignment, whatever the adapters' sizes.
question = "How do I get a replacement for my lost card?"
advert = next(row["SMS"] for row in held_out if "winner" in row["SMS"])
start = time.perf_counter()
base.use(spam)
swap = time.perf_counter() - start
print("spam adapter in use: ", base.generate(advert))
base.use(cards)
print("cards adapter in use:", base.generate(question))

# Mix: each row of a batch has its own adapter, or none.
prompts = [question, advert, question]
mixed = base.generate(prompts, adapter=[cards, spam, None], max_new_tokens=12)
print("all in one batch:    ", mixed)

# Reload what lies on disk in a fresh process: the same answers. PEFT loads these folders as well.
FRESH = """
import json, sys
from adapterkit import Base
base = Base(sys.argv[1])
cards, spam = base.load(sys.argv[3]), base.load(sys.argv[4])
print(json.dumps(base.generate(json.loads(sys.argv[2]), adapter=[cards, spam, None], max_new_tokens=12)))
"""
given = [HERE / "base", json.dumps(prompts), OUT / "cards/adapter", OUT / "merged"]
fresh = json.loads(subprocess.run([sys.executable, "-c", FRESH, *given], check=True, stdout=subprocess.PIPE).stdout)

table = Table("task", "held-out rows", "base alone", "its adapter", title="accuracy, and what it took")
for task, score in scores.items():
    alone = f"{score.base['accuracy']:.1%}" if score.base else ""
    table.add_row(task, f"{score.rows:,}", alone, f"{score['accuracy']:.1%}")
table.add_section()
table.add_row("swap an adapter", "", "", f"{swap * 1e6:.0f} µs")
table.add_row("answers after reloading", "", "", "the same" if fresh == mixed else f"OTHERS: {fresh}")
table.add_row("an adapter on disk", "", "", f"{sum(f.stat().st_size for f in given[2].iterdir()) / 1e6:.1f} MB")
Console().print(table)
sys.exit(fresh != mixed)
