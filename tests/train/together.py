"""Trains in two processes that share a run, and in one; says what became of each.

Run as ``python -m tests.train.together FOLDER SCENARIOS``: prints one JSON line. Processes are forks: none pays for imports.
"""

import gc
import json
import logging
import os
import signal
import socket
import sys
import tempfile
import time
import traceback
from pathlib import Path

import torch
import torch.distributed.fsdp  # before the fork, or each process would take seconds over it
import transformers.optimization  # noqa: F401 - the same
from torch import distributed
from torch.multiprocessing.reductions import StorageWeakRef
from transformers import AutoTokenizer

from adapterkit import Base, Job, Registry, hookimpl
from adapterkit.testing import tiny_gpt2, tiny_llama
from adapterkit.train import sharding
from adapterkit.train.journal import Journal
from adapterkit.train.processes import Processes
from adapterkit.train.training import Training
from tests.support import EXAMPLE_BASE

ROWS = [
    {"prompt": f"question {n} {'of many words ' * (n % 5)}", "completion": ("yes it is", "no")[n % 2]}
    for n in range(18)
]
OPTIONS = {"rank": 4, "learning_rate": 1e-2, "batch_size": 4, "epochs": 2, "logging_steps": 1, "warmup_ratio": 0.0}
WATCHED = {
    "eval_data": ROWS[:7],
    "eval_steps": 2,
    "report": False,
    "general_data": [{"text": "Of ships and seas."}] * 3,
}
ALONE = {"gradient_accumulation_steps": 2}
"""What makes one process take the steps that two take together: 18 rows are 5 batches, so that a last one has one of two."""
FAMILIES = {"llama": (tiny_llama, "max_position_embeddings"), "gpt2": (tiny_gpt2, "n_positions")}


class Listener:
    def __init__(self):
        self.heard = []

    @hookimpl
    def adapterkit_train_started(self, run):
        self.heard.append("started")

    @hookimpl
    def adapterkit_train_logged(self, run, record):
        self.heard.append("logged")

    @hookimpl
    def adapterkit_train_finished(self, run, adapter):
        self.heard.append("finished")

    @hookimpl
    def adapterkit_train_failed(self, run, error):
        self.heard.append("failed")


class Life:
    """One process of a scenario: what it is given, and what it says at its end."""

    def __init__(self, root: Path, tokenizer):
        self.root, self.tokenizer = root, tokenizer
        self.rank = int(os.environ.get("RANK", "0"))
        self.several = "WORLD_SIZE" in os.environ
        self.listener = Listener()
        self.said = {"rank": self.rank}

    def base(self, family="llama", *, folder=False):
        registry = Registry()
        registry.add(self.listener)
        if folder:
            return Base(self.root / family, registry=registry)
        make, longest = FAMILIES[family]
        return Base(make(vocab_size=8192, **{longest: 128}), tokenizer=self.tokenizer, registry=registry)

    def train(self, base, folder: str, rows=ROWS, **options):
        """Trains, and keeps the gradients of the first step."""
        gradients, update = {}, Training.update

        def updating(training):
            if not gradients:
                gradients.update({name: one.grad.clone() for name, one in training.module.named_parameters()})
            update(training)

        Training.update = updating
        alone = {} if self.several else ALONE
        start = time.perf_counter()
        try:
            adapter = base.train(rows, output=self.root / folder, **{**OPTIONS, **WATCHED, **alone, **options})
        finally:
            Training.update = update
            self.said["took"] = time.perf_counter() - start
        torch.save((gradients, dict(adapter.tensors)), self.root / f"{folder}-{self.rank}.pt")
        self.said["digest"] = adapter.digest
        return adapter


def equal(life: Life, family: str, *, fsdp: bool | None = False, checkpointing: bool = False) -> None:
    """A run in one process or in two; ``fsdp`` is None where accelerate's settings are to say it."""
    ways = {True: "fsdp", False: "ddp", None: "None"}
    name = f"{family}-{ways[fsdp]}-{checkpointing}" if life.several else f"{family}-alone"
    base = life.base(family, folder=fsdp is not False)
    divide = sharding.shard

    def dividing(base, *rest):
        names = {name for name, _ in base.model.named_parameters() if ".layers." in name or ".h." in name}
        found = [one.untyped_storage() for name, one in base.model.named_parameters() if name in names]
        held = [StorageWeakRef(one) for one in found]
        del found
        divide(base, *rest)
        gc.collect()
        life.said["held"] = [sum(not one.expired() for one in held), len(held)]

    sharding.shard = dividing
    writes = []
    sys.addaudithook(lambda event, args: writes.append(str(args)) if _writes(event, args, life.root / name) else None)
    adapter = life.train(base, name, gradient_checkpointing=checkpointing, fsdp=fsdp)
    life.said |= {"heard": life.listener.heard, "resident": adapter in base.resident, "writes": len(writes)}
    life.said["loaded"] = "_loaded" in vars(base)
    if fsdp is not False:  # the base is as it was, and answers with the adapter that was trained on its pieces
        life.said["answer"] = base.generate("question 1", adapter=adapter, max_new_tokens=8)
        life.said["alone"] = life.base(family).generate("question 1", adapter=adapter, max_new_tokens=8)


def _writes(event: str, arguments: tuple, folder: Path) -> bool:
    changes = event in ("os.mkdir", "os.rename", "os.remove", "shutil.rmtree")
    opens = event == "open" and any(letter in str(arguments[1] or "") for letter in "wax+")
    return (changes or opens) and str(arguments[0]).startswith(str(folder))


def dropping(life: Life, *, fsdp: bool = False) -> None:
    """Runs to the end, with dropout; what is drawn differs from process to process."""
    life.train(life.base(folder=fsdp), "whole", dropout=0.2, save_steps=2, gradient_accumulation_steps=1, fsdp=fsdp)


def killed(life: Life, *, fsdp: bool = False) -> None:
    """Both processes are killed in the fourth step."""
    update = Training.update

    def deadly(training):
        if training.step == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        update(training)

    Training.update = deadly
    life.train(life.base(folder=fsdp), "cut", dropout=0.2, save_steps=2, gradient_accumulation_steps=1, fsdp=fsdp)


def resumed(life: Life, *, fsdp: bool = False) -> None:
    options = {"dropout": 0.2, "save_steps": 2, "gradient_accumulation_steps": 1, "fsdp": fsdp}
    life.train(life.base(folder=fsdp), "cut", resume=True, **options)
    base = life.base(folder=fsdp)
    again = base.train(ROWS, output=life.root / "cut", resume=True, **{**OPTIONS, **WATCHED, **options})
    life.said["again"] = again.digest


def not_summed(life: Life) -> None:
    """What the sums are for: without them each process goes its own way, which is seen at the end."""
    Processes.sum_gradients = lambda *_: None
    life.train(life.base(), "not-summed")


def bad_rows(life: Life) -> None:
    """One process alone is given rows that cannot be used."""
    life.train(life.base(), "bad", rows=ROWS if life.rank == 0 else [{"prompt": "no completion"}])


def other_rows(life: Life) -> None:
    life.train(life.base(), "other", rows=ROWS[life.rank :])


def failing(life: Life, *, fsdp: bool = False) -> None:
    """A pass of one process fails in the third step."""
    base = life.base(folder=fsdp)
    passes = Training.passes

    def failing_passes(training, batches):
        if training.step == 2 and life.rank == 1:
            raise RuntimeError("out of memory, say")
        return passes(training, batches)

    Training.passes = failing_passes
    life.train(base, f"failing-{fsdp}", fsdp=fsdp)


def full_disk(life: Life) -> None:
    """The process that writes cannot."""

    def no_space(self, record):
        raise OSError(28, "No space left on device")

    if life.rank == 0:
        Journal.__call__ = no_space
    life.train(life.base(), "disk")


def diverging(life: Life) -> None:
    life.train(life.base(), "diverging", learning_rate=1e30, epochs=8)


def interrupted(life: Life) -> None:
    """Ctrl-C reaches the processes at different moments."""
    update = Training.update

    def pressing(training):
        if training.step == 1 + life.rank:
            signal.raise_signal(signal.SIGINT)
        update(training)

    Training.update = pressing
    life.train(life.base(), "interrupted", epochs=8)


def refusals(life: Life) -> None:
    """What several processes do not do, each with its reason; nothing of it keeps the next run from being made."""
    in_use = life.base(folder=True)
    in_use.use(life.train(in_use, "before", max_steps=1))
    jobs = [Job(ROWS, rank=2, max_steps=1), Job(ROWS, rank=4, max_steps=1)]
    for name, work in {
        "object": lambda: life.base().train(ROWS, fsdp=True, **OPTIONS),
        "quantized": lambda: Base(life.root / "llama", quantize="nf4").train(ROWS, fsdp=True, **OPTIONS),
        "in use": lambda: in_use.train(ROWS, fsdp=True, **OPTIONS),
        "many": lambda: life.base().train_many(jobs),
    }.items():
        try:
            work()
        except ValueError as error:
            life.said[name] = str(error)
    life.said["still"] = in_use.active == life.train(in_use, "after", max_steps=1)


def accelerated(life: Life) -> None:
    """A script's own Accelerator, after a run in one process."""
    life.train(life.base(), "accelerated", max_steps=1)
    from accelerate import Accelerator

    life.said["started"] = distributed.is_initialized()
    life.said["precision"] = Accelerator(mixed_precision="bf16", cpu=True).mixed_precision


def live(life: Life, scenario: str, options: dict) -> None:
    """The whole of one process; what it says is in a file of its own."""
    logging.getLogger("adapterkit").addHandler(logging.NullHandler())
    code = 0
    try:
        globals()[scenario](life, **options)
    except BaseException as error:  # noqa: BLE001 - it is what is looked at
        code = 1
        life.said |= {"error": type(error).__name__, "text": str(error), "trace": traceback.format_exc()}
    (life.root / f"said-{life.rank}.json").write_text(json.dumps(life.said))
    if distributed.is_initialized() and not code:
        distributed.destroy_process_group()
    os._exit(code)


def fork(root: Path, tokenizer, scenario: str, options: dict, **environment: str) -> int:
    child = os.fork()
    if not child:
        os.environ.update(environment)
        live(Life(root, tokenizer), scenario, options)
    return child


def run(root: Path, tokenizer, scenario: str, count: int, options: dict, **environment: str) -> list[dict]:
    """What each process of a scenario says."""
    for path in root.glob("said-*.json"):
        path.unlink()
    if count > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        environment |= {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    children = []
    for rank in range(count):
        mine = {"RANK": str(rank), "LOCAL_RANK": str(rank)} if count > 1 else {}
        children.append(fork(root, tokenizer, scenario, options, **environment, **mine))
    start = time.perf_counter()
    codes = [os.waitpid(child, 0)[1] for child in children]
    seconds = time.perf_counter() - start
    found = []
    for rank, code in enumerate(codes):
        file = root / f"said-{rank}.json"
        said = json.loads(file.read_text()) if file.exists() else {}
        found.append({**said, "killed": os.WIFSIGNALED(code), "seconds": seconds})
    return found


def difference(root: Path, one: str, other: str) -> list[float]:
    """The largest difference of gradients, and of adapters."""
    pairs = zip(torch.load(root / one), torch.load(root / other), strict=True)
    return [max(float((a[name] - b[name]).abs().max()) for name in a) for a, b in pairs if a.keys() == b.keys()]


def main() -> None:
    """Takes a folder and, as JSON, a list of ``[scenario, processes, options, environment]``."""
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(EXAMPLE_BASE)
    root = Path(tempfile.mkdtemp(dir=sys.argv[1]))
    for family, (make, longest) in FAMILIES.items():
        make(vocab_size=8192, **{longest: 128}).save_pretrained(root / family)
        tokenizer.save_pretrained(root / family)
    said = []
    for scenario, count, options, environment in json.loads(sys.argv[2]):
        said.append(run(root, tokenizer, scenario, count, options, **environment))
    print(json.dumps({"root": str(root), "said": said}))  # noqa: T201 - what the test reads


if __name__ == "__main__":
    main()
