"""Two adapters become one: what each way of putting them together leaves, of two tasks, and of one that both know.

Run it after examples/quickstart.py: it takes the adapters that were trained there, or trains them likewise. ``--rows`` and
``--steps`` make it small.
"""

import argparse
import csv
from pathlib import Path
from typing import Any

from adapterkit import Base, Blend, Stack, merge

HERE = Path(__file__).parent
OUT = HERE.parent / "out" / "quickstart"
INTENTS = {"prompt": "text", "completion": "category"}
SPAM = {"prompt": "SMS", "completion": "Label"}
FAST = {"rank": 8, "alpha": 32.0, "batch_size": 32, "learning_rate": 4e-3, "adam_beta1": 0.7, "adam_beta2": 0.95}
HALF, WHOLE = [0.5, 0.5], [1.0, 1.0]
MERGES = [
    ("cat", HALF, {}),
    ("cat", WHOLE, {}),
    ("linear", HALF, {}),
    ("svd", WHOLE, {"rank": 8}),
    ("task_arithmetic", WHOLE, {"scaling": 0.8}),
    ("soup", WHOLE, {}),
    ("ties", WHOLE, {"density": 0.2}),
    ("ties", WHOLE, {"density": 0.2, "normalize": "none"}),
    ("dare_linear", WHOLE, {"density": 0.5}),
    ("dare_ties", WHOLE, {"density": 0.5}),
    ("magnitude_prune", WHOLE, {"density": 0.5}),
    ("breadcrumbs", WHOLE, {"density": 0.9, "gamma": 0.01}),
    ("della", WHOLE, {"density": 0.5}),
    ("slerp", HALF, {}),
    ("karcher", WHOLE, {}),
    ("model_stock", WHOLE, {}),
    ("sce", WHOLE, {}),
    ("knots", WHOLE, {}),
    ("core_space", WHOLE, {}),
]


def rows_of(name: str, columns: dict[str, str], **how: Any) -> list[dict[str, str]]:
    """The rows of a file, with the columns that prompts and completions are usually in."""
    with (HERE / "data" / name).open(encoding="utf-8") as file:
        return [{field: row[column] for field, column in columns.items()} for row in csv.DictReader(file, **how)]


asked = argparse.ArgumentParser(description=__doc__)
asked.add_argument("--rows", type=int, default=300, help="held-out rows of each task")
asked.add_argument("--steps", type=int, help="train anew, for so many steps")
options = asked.parse_args()

base = Base(HERE / "base")
messages = rows_of("sms_spam.tsv", SPAM, delimiter="\t", quoting=csv.QUOTE_NONE)
known = [row for n, row in enumerate(messages) if n % 5]
train = {"cards": rows_of("banking77/train.csv", INTENTS), "one": known[:1000], "two": known[1000:2000]}
# the test split is sorted by intent: every so many rows, so that all intents are there
tests = {"cards": rows_of("banking77/test.csv", INTENTS), "spam": messages[::5]}
tests = {task: rows[:: max(1, len(rows) // options.rows)][: options.rows] for task, rows in tests.items()}

adapters = []
for name, rows in train.items():
    folder = OUT / name / "adapter"
    if folder.exists() and options.steps is None:
        adapters.append(base.load(folder))
    else:
        adapters.append(base.train(rows, max_steps=options.steps, **FAST))
cards, one, two = adapters

few = {name: rows[:: len(rows) // 64][:64] for name, rows in train.items()}
tasks = base.learn_blend({"cards": cards, "spam": one}, few["cards"] + few["one"], steps=60)
halves = base.learn_blend({"one": one, "two": two}, few["one"] + few["two"], steps=60)
contenders = {
    "the base alone": (None, None),
    "the first alone": (cards, one),
    "the second alone": (one, two),
    "`Stack`": (Stack(cards, one), Stack(one, two)),
    "`Blend`, weights [0.5, 0.5]": (Blend({cards: 0.5, one: 0.5}), Blend({one: 0.5, two: 0.5})),
    "`learn_blend`": (tasks.blend, halves.blend),
}
for strategy, weights, how in MERGES:
    said = ", ".join(f"{name}={value!r}" for name, value in {"weights": weights, **how}.items())
    pairs = [cards, one], [one, two]
    contenders[f"`{strategy}`, {said}"] = tuple(merge(pair, weights, strategy, **how) for pair in pairs)


def accuracy(acting: Any, task: str) -> str:
    """On the held-out rows of a task."""
    scores = base.evaluate(tests[task], adapter=acting, metrics=("accuracy",), compare=False, resamples=0)
    return f"{scores['accuracy']:.1%}"


print("| acts | cards + spam: Banking77 | cards + spam: SMS spam | spam + spam: SMS spam |\n|---|---|---|---|")
for name, (of_tasks, of_halves) in contenders.items():
    cells = [accuracy(of_tasks, "cards"), accuracy(of_tasks, "spam"), accuracy(of_halves, "spam")]
    print("|", " | ".join([name, *cells]), "|", flush=True)
print(
    f"\naccuracy on {' and '.join(str(len(rows)) for rows in tests.values())} held-out rows; learned weights:", end=" "
)
print(*({name: round(weight, 2) for name, weight in found.weights.items()} for found in (tasks, halves)))
