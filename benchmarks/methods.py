"""One table of methods: what each costs and reaches on the same base, the same rows and the same number of steps.

    python benchmarks/methods.py                          # every method, each in a process of its own; prints the table
    python benchmarks/methods.py --write                  # and puts it into docs/explanation/choosing-a-method.md
    python benchmarks/methods.py --only lora --rows 1000  # a shorter look
    python benchmarks/methods.py --only full --learning-rate 3e-3

Forgetting is how much the perplexity of plain English (examples/data/general.jsonl) rises under the Banking77 adapter.
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
from itertools import pairwise
from pathlib import Path

import torch

from adapterkit import Base, Registry, UnknownNameError, hookimpl

ROOT = Path(__file__).parents[1]
DATA = ROOT / "examples" / "data"
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
    "prompt_tuning": {"tokens": 20, "learning_rate": 3e-2},
    "p_tuning": {"tokens": 20, "learning_rate": 3e-3},
    "ia3": {"learning_rate": 2e-2},
    "peft:ia3": {"learning_rate": 2e-2},
    "peft:vera": {"learning_rate": 2e-2},
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


def measure(method: str, task: str, rows: int | None, options: dict[str, float]) -> dict[str, float]:
    """Train and score one adapter on one task, in this process."""
    watch = Watch()
    base, columns = Base(ROOT / "examples" / "base", registry=registry(method, watch)), TASKS[task]
    train, test = rows_of(task)
    whole = sum(parameter.numel() for parameter in base.model.parameters()) if method != "qlora" else 7_999_744
    gpu = torch.cuda.is_available()
    with tempfile.TemporaryDirectory() as folder:
        if gpu:
            torch.cuda.reset_peak_memory_stats()
        adapter = base.train(train[:rows], method=method, columns=columns, output=folder, **options)
        peak = torch.cuda.max_memory_allocated() if gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        log = [json.loads(line) for line in (Path(folder) / "log.jsonl").read_text().splitlines()]
        size = sum(file.stat().st_size for file in (Path(folder) / "adapter").iterdir())
    scores = base.evaluate(test[:rows], adapter=adapter, columns=columns, compare=False, batch_size=256)
    plain = base.evaluate(DATA / "general.jsonl", adapter=adapter)
    return {
        "trained": adapter.parameters,
        "share": adapter.parameters / whole,
        "disk": size,
        "seconds": watch.seconds(),
        "peak": peak,
        "accuracy": scores["accuracy"],
        "first loss": log[0]["loss"],
        "last loss": log[-1]["loss"],
        "forgetting": plain["perplexity"] / plain.base["perplexity"] - 1,
        "perplexity": plain["perplexity"],
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


def registry(method: str, watch: Watch) -> Registry:
    """The installed plugins, and the example's where it is not installed."""
    plugins = Registry()
    plugins.add(watch)
    try:
        plugins.method(method)
    except UnknownNameError:
        plugins.add(ROOT / "examples" / "adapterkit-ia3" / "src" / "adapterkit_ia3.py")
    return plugins


def table(results: dict[str, dict[str, dict[str, float]]]) -> str:
    """The page's table."""
    lines = ["| " + " | ".join(HEADER) + " |", "|" + "---|" * len(HEADER)]
    for method, tasks in results.items():
        bank, spam = tasks["banking77"], tasks["sms_spam"]
        cells = (
            f"`{method}`",
            f"{bank['trained']:,}",
            f"{bank['share']:.2%}",
            f"{bank['disk'] / 1e6:.2f} MB",
            f"{bank['seconds']:.3f}",
            f"{bank['peak'] / 2**20:,.0f} MiB",
            f"{bank['accuracy']:.1%}",
            f"{spam['accuracy']:.1%}",
            f"{bank['forgetting']:+.0%}",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure, in one process each, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=list(METHODS))
    parser.add_argument("--rows", type=int, help="at most so many rows of each split")
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--task", choices=TASKS, help="measure in this process, and print JSON")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    changes = {} if given.learning_rate is None else {"learning_rate": given.learning_rate}
    if given.task:
        (method,) = given.only
        print(json.dumps(measure(method, given.task, given.rows, {**SHARED, **METHODS[method], **changes})))
        return
    results: dict[str, dict[str, dict[str, float]]] = {}
    for method in given.only:
        for task in TASKS:
            command = [sys.executable, __file__, "--only", method, "--task", task]
            command += ["--rows", str(given.rows)] if given.rows else []
            command += ["--learning-rate", str(given.learning_rate)] if changes else []
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            results.setdefault(method, {})[task] = json.loads(done.stdout.splitlines()[-1])
            print(method, task, json.dumps(results[method][task]), file=sys.stderr, flush=True)
    print(table(results))
    if given.write:
        page = PAGE.read_text(encoding="utf-8")
        before, rest = page.split(START)
        after = rest.split(END)[1]
        PAGE.write_text(f"{before}{START}\n\n{table(results)}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
