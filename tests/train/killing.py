"""Trains in a process of its own, which is killed at some moment; then resumes, and says what became of it.

Run as ``python -m tests.train.killing MOMENTS SEED``: prints one JSON line. Each life is a fork, so that none pays for imports.
"""

import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from transformers import AutoTokenizer

from adapterkit import Adapter, Base
from adapterkit.testing import tiny_llama
from adapterkit.train import checkpoints
from tests.support import EXAMPLE_BASE

ROWS = [{"prompt": f"question {n} {'of many words ' * (n % 5)}", "completion": ("yes", "no")[n % 2]} for n in range(30)]
OPTIONS = {
    "rank": 4,
    "dropout": 0.2,
    "learning_rate": 1e-2,
    "batch_size": 4,
    "epochs": 3,
    "logging_steps": 5,
    "save_steps": 2,
}
WATCHED = {"eval_data": ROWS[:6], "eval_steps": 4, "load_best_model_at_end": True}


def life(folder: Path, tokenizer, dies_at_sync: int = 0) -> None:
    """One process: it trains in ``folder`` from where that was left, and may kill itself while it writes a checkpoint."""
    if dies_at_sync:
        left, sync = [dies_at_sync], checkpoints.sync

        def deadly(path: Path) -> None:
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            sync(path)

        checkpoints.sync = deadly
    base = Base(tiny_llama(vocab_size=8192, max_position_embeddings=128), tokenizer=tokenizer)
    base.train(ROWS, output=folder, resume=True, report=False, **OPTIONS, **WATCHED)
    os._exit(0)


def forked(*arguments) -> int:
    child = os.fork()
    if not child:
        life(*arguments)
    return child


def ended(child: int) -> int:
    return os.waitpid(child, 0)[1]


def wait_for_start(folder: Path) -> None:
    while not (folder / "run.json").exists():
        time.sleep(0.01)


def main() -> None:
    moments, chance = int(sys.argv[1]), random.Random(int(sys.argv[2]))
    tokenizer = AutoTokenizer.from_pretrained(EXAMPLE_BASE)
    with tempfile.TemporaryDirectory() as root:
        plain = Path(root, "plain")
        child = forked(plain, tokenizer)
        wait_for_start(plain)
        start = time.perf_counter()
        assert ended(child) == 0
        took = time.perf_counter() - start
        expected = Adapter.load(plain / "adapter").digest
        log = [line.split(', "tokens_per_second"')[0] for line in (plain / "log.jsonl").read_text().splitlines()]
        said = []
        for number in range(moments):
            folder = Path(root, str(number))
            if number % 4 == 3:  # in the middle of writing a checkpoint
                child = forked(folder, tokenizer, chance.randrange(1, 20))
            else:
                child = forked(folder, tokenizer)
                wait_for_start(folder)
                time.sleep(chance.uniform(0.0, 0.8) * took)
                os.kill(child, signal.SIGKILL)
            killed = os.WIFSIGNALED(ended(child))
            steps = sorted(path.name for path in (folder / "checkpoints").glob("step-*")) if folder.is_dir() else []
            assert ended(forked(folder, tokenizer)) == 0
            found = [line.split(', "tokens_per_second"')[0] for line in (folder / "log.jsonl").read_text().splitlines()]
            said.append(
                {
                    "killed": killed,
                    "from": steps[-1] if steps else "",
                    "same": Adapter.load(folder / "adapter").digest == expected,
                    "log": sorted(set(log) ^ set(found)),
                    "left": sorted(path.name for path in folder.iterdir()),
                }
            )
        sys.stdout.write(json.dumps(said) + "\n")


if __name__ == "__main__":
    main()
