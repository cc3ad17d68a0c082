"""One small base, two adapters, real data, two CPU cores: train, swap, mix, merge, save, reload. Run it with `make demo`."""

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
mixed = base.generate([question, advert, question], adapter=[cards, spam, None], max_new_tokens=12)
print("all in one batch:    ", mixed)

# Merge: both as one adapter, a sum of their changes that is exact and needs no base. What it keeps of each task, on fewer rows:
both = merge([cards, spam])
both.save(OUT / "both")
with (HERE / "data/banking77/test.csv").open(encoding="utf-8") as file:
    some = {"Banking77 (77 intents)": (list(csv.DictReader(file))[::10], INTENTS), "SMS spam": (held_out[::4], SPAM)}
kept = {
    task: base.evaluate(rows, adapter=both, columns=columns, compare=False) for task, (rows, columns) in some.items()
}

# Reload what lies on disk in a fresh process: the same answers. PEFT loads these folders as well.
FRESH = """
import json, sys
from adapterkit import Base
base = Base(sys.argv[1])
cards, spam, both = map(base.load, sys.argv[3:])
print(json.dumps(base.generate(json.loads(sys.argv[2]), adapter=[cards, spam, both, None], max_new_tokens=12)))
"""
prompts = [question, advert, advert, question]
known = base.generate(prompts, adapter=[cards, spam, both, None], max_new_tokens=12)
given = [HERE / "base", json.dumps(prompts), OUT / "cards/adapter", OUT / "spam/adapter", OUT / "both"]
fresh = json.loads(subprocess.run([sys.executable, "-c", FRESH, *given], check=True, stdout=subprocess.PIPE).stdout)

table = Table("task", "held-out rows", "base alone", "its adapter", "both, merged", title="accuracy, and what it took")
for task, score in scores.items():
    shown = [score.base["accuracy"], score["accuracy"], kept[task]["accuracy"]]
    table.add_row(task, f"{score.rows:,}", *(f"{one:.1%}" for one in shown))
table.add_section()
table.add_row("swap an adapter", "", "", f"{swap * 1e6:.0f} µs")
table.add_row("answers after reloading", "", "", "the same" if fresh == known else f"OTHERS: {fresh}")
table.add_row("an adapter on disk", "", "", f"{sum(f.stat().st_size for f in given[2].iterdir()) / 1e6:.1f} MB")
Console().print(table)
sys.exit(fresh != known)
