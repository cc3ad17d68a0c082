"""One table of methods: what each costs and reaches on the same base, the same rows and the same number of steps.

    python benchmarks/methods.py                          # every method, each in a process of its own; prints the table
    python benchmarks/methods.py --write                  # and puts it into docs/explanation/choosing-a-method.md
    python benchmarks/methods.py --jobs 6                 # six at a time: what is learnt is the same
    python benchmarks/methods.py --only lora --rows 1000  # a shorter look
    python benchmarks/methods.py --only full --learning-rate 3e-3

What a method costs is measured apart, in a short run with nothing beside it. Forgetting is how much the perplexity of plain
English (adapterkit/data/general.jsonl) rises under the Banking77 adapter.
"""

import argparse
import csv
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import torch

from adapterkit import Base, Registry, UnknownNameError, hookimpl
from adapterkit.data.general import general_rows

ROOT = Path(__file__).parents[1]
DATA = ROOT / "examples" / "data"
BASE = ROOT / "examples" / "base"
BASE_PARAMETERS = 7_999_744
COST = "cost"
PAGE = ROOT / "docs" / "explanation" / "choosing-a-method.md"
START, END = "<!-- table -->", "<!-- end of table -->"
TASKS = {
    "banking77": {"prompt": "text", "completion": "category"},
    "sms_spam": {"prompt": "SMS", "completion": "Label"},
}
SHARED = {"batch_size": 32, "adam_beta1": 0.7, "adam_beta2": 0.95, "logging_steps": 1, "epochs": 1.0}
METHODS = {
    "full": {"learning_rate": 1e-3},
    "lora": {"rank": 8, "alpha": 32.0, "learning_rate": 4e-3},
    "qlora": {"rank": 8, "alpha": 32.0, "learning_rate": 4e-3, "gradient_checkpointing": False},
    "prompt_tuning": {"tokens": 20, "learning_rate": 1e-1},
    "p_tuning": {"tokens": 20, "learning_rate": 3e-3},
    "prefix_tuning": {"tokens": 20, "learning_rate": 1e-1},
    "ia3": {"learning_rate": 1e-1},
    "peft:ia3": {"learning_rate": 1e-1},
    "peft:vera": {"learning_rate": 1e-1},
    "peft:oft": {"learning_rate": 4e-3},
}
HEADER = (
    "method",
    "trained",
    "share",
    "on disk",
    "seconds a step",
    "peak memory",
    "Banking77",
    "SMS spam",
    "forgetting",
)


def rows_of(task: str) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Training rows and held-out ones."""
    if task == "banking77":
        return tuple(
            list(csv.DictReader((DATA / task / f"{part}.csv").open(encoding="utf-8"))) for part in ("train", "test")
        )
    with (DATA / "sms_spam.tsv").open(encoding="utf-8") as file:
        every = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [row for n, row in enumerate(every) if n % 5], every[::5]


def learn(method: str, task: str, rows: int | None, options: dict[str, float]) -> dict[str, float]:
    """Train an adapter on one task in this process, and score it on the rows that were held out."""
    base, train, test = Base(BASE, registry=registry(method)), *rows_of(task)
    adapter = base.train(train[:rows], method=method, columns=TASKS[task], **options)
    scores = base.evaluate(test[:rows], adapter=adapter, columns=TASKS[task], compare=False, batch_size=256)
    plain = base.evaluate(general_rows(), adapter=adapter)
    return {"accuracy": scores["accuracy"], "forgetting": plain["perplexity"] / plain.base["perplexity"] - 1}


def cost(method: str, task: str, options: dict[str, float]) -> dict[str, float]:
    """What thirty steps take in this process: numbers, bytes, seconds and memory."""
    watch, gpu = Watch(), torch.cuda.is_available()
    base, (train, _) = Base(BASE, registry=registry(method, watch)), rows_of(task)
    with tempfile.TemporaryDirectory() as folder:
        adapter = base.train(
            train[:960], method=method, columns=TASKS[task], output=folder, **{**options, "max_steps": 30}
        )
        size = sum(file.stat().st_size for file in (Path(folder) / "adapter").iterdir())
    return {
        "trained": adapter.parameters,
        "share": adapter.parameters / BASE_PARAMETERS,
        "disk": size,
        "seconds": watch.seconds(),
        "peak": torch.cuda.max_memory_allocated() if gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


class Watch:
    """Notes when each step was logged."""

    def __init__(self) -> None:
        self.times: list[float] = []

    @hookimpl
    def adapterkit_train_logged(self) -> None:
        """A step has ended."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.times.append(time.perf_counter())

    def seconds(self) -> float:
        """What a step takes: the median."""
        return statistics.median(after - before for before, after in pairwise(self.times))


def registry(method: str, *listeners: object) -> Registry:
    """The installed plugins, and the example's where it is not installed."""
    plugins = Registry()
    for listener in listeners:
        plugins.add(listener)
    try:
        plugins.method(method)
    except UnknownNameError:
        plugins.add(ROOT / "examples" / "adapterkit-ia3" / "src" / "adapterkit_ia3.py")
    return plugins


def table(results: dict[str, dict[str, dict[str, float]]]) -> str:
    """The page's table."""
    lines = ["| " + " | ".join(HEADER) + " |", "|" + "---|" * len(HEADER)]
    for method, found in results.items():
        price, bank, spam = found[COST], found["banking77"], found["sms_spam"]
        cells = (
            f"`{method}`",
            f"{price['trained']:,}",
            f"{price['share']:.2%}",
            f"{price['disk'] / 1e6:.2f} MB",
            f"{price['seconds']:.3f}",
            f"{price['peak'] / 2**20:,.0f} MiB",
            f"{bank['accuracy']:.1%}",
            f"{spam['accuracy']:.1%}",
            f"{bank['forgetting']:+,.0%}",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def run(method: str, what: str, given: argparse.Namespace) -> dict[str, float]:
    """One measurement in a process of its own."""
    command = [sys.executable, __file__, "--only", method, "--measure", what]
    command += ["--rows", str(given.rows)] if given.rows else []
    command += ["--learning-rate", str(given.learning_rate)] if given.learning_rate else []
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(method, what, json.dumps(found), file=sys.stderr, flush=True)
    return found


def main() -> None:
    """Measure, in one process each, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=list(METHODS), metavar="METHOD")
    parser.add_argument("--rows", type=int, help="at most so many rows of each split")
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--measure", choices=[*TASKS, COST], help="measure in this process, and print JSON")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    if given.measure:
        (method,) = given.only
        options = {**SHARED, **METHODS[method]}
        options |= {"learning_rate": given.learning_rate} if given.learning_rate else {}
        if given.measure == COST:
            print(json.dumps(cost(method, "banking77", options)))
        else:
            print(json.dumps(learn(method, given.measure, given.rows, options)))
        return
    with ThreadPoolExecutor(given.jobs) as pool:
        learnt = {(m, task): pool.submit(run, m, task, given) for m in given.only for task in TASKS}
        results = {m: {task: learnt[m, task].result() for task in TASKS} for m in given.only}
    for method, found in results.items():
        found[COST] = run(method, COST, given)
    print(table(results))
    if given.write:
        page = PAGE.read_text(encoding="utf-8")
        before, rest = page.split(START)
        after = rest.split(END)[1]
        PAGE.write_text(f"{before}{START}\n\n{table(results)}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
