"""One small base, two adapters, real data, two CPU cores: train, swap, mix, save, reload. Run it with `make demo`."""

import csv
import json
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from adapterkit import Base

HERE = Path(__file__).parent
OUT = HERE.parent / "out" / "quickstart"
INTENTS = {"prompt": "text", "completion": "category"}  # which column is the question, which the answer
SPAM = {"prompt": "SMS", "completion": "Label"}
FAST = {"rank": 8, "alpha": 32.0, "batch_size": 32, "learning_rate": 4e-3, "adam_beta1": 0.7, "adam_beta2": 0.95}

base = Base(HERE / "base")  # 8 million parameters; frozen, shared, and loaded when it is first needed

# Train: 77 kinds of questions to a bank, then spam among text messages. Each adapter is 4% of the base's size.
cards = base.train(HERE / "data/banking77/train.csv", columns=INTENTS, output=OUT / "cards", **FAST)
with (HERE / "data/sms_spam.tsv").open(encoding="utf-8") as file:
    messages = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
held_out = messages[::5]
spam = base.train([row for n, row in enumerate(messages) if n % 5][:2000], columns=SPAM, output=OUT / "spam", **FAST)

# Evaluate on rows that neither has seen, beside the base alone: the whole generated answer must be the label.
scores = {
    "Banking77 (77 intents)": base.evaluate(HERE / "data/banking77/test.csv", adapter=cards, columns=INTENTS),
    "SMS spam": base.evaluate(held_out, adapter=spam, columns=SPAM),
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
cards, spam = base.load(sys.argv[2]), base.load(sys.argv[3])
print(json.dumps(base.generate(json.loads(sys.argv[4]), adapter=[cards, spam, None], max_new_tokens=12)))
"""
given = [HERE / "base", OUT / "cards/adapter", OUT / "spam/adapter", json.dumps(prompts)]
fresh = json.loads(subprocess.run([sys.executable, "-c", FRESH, *given], check=True, stdout=subprocess.PIPE).stdout)

table = Table("task", "held-out rows", "base alone", "with its adapter", title="accuracy, and what it took")
for task, score in scores.items():
    table.add_row(task, f"{score.rows:,}", f"{score.base['accuracy']:.1%}", f"{score['accuracy']:.1%}")
table.add_section()
table.add_row("swap an adapter", "", "", f"{swap * 1e6:.0f} µs")
table.add_row("answers after reloading", "", "", "the same" if fresh == mixed else f"OTHERS: {fresh}")
table.add_row("an adapter on disk", "", "", f"{sum(f.stat().st_size for f in given[1].iterdir()) / 1e6:.1f} MB")
Console().print(table)
sys.exit(fresh != mixed)
