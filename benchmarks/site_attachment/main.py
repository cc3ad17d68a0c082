"""How adapter sites attach to a frozen transformers model: every candidate under everything a user may do to the model.

    python benchmarks/site_attachment/main.py [--device cuda] [--only compile,recompute]

Prints the tables of docs/explanation/how-sites-attach.md. A cell that begins with NO is a failure; the rest of the
cell says how. Takes some minutes; what the machine cannot run says so.
"""

# ruff: noqa: BLE001  whatever fails is the finding

from __future__ import annotations

import argparse
import functools
import logging
import platform
import time
import warnings
from typing import TYPE_CHECKING, Any

import site_checks
import site_compile
import site_lookups
import site_parallel
import torch
import transformers
from site_candidates import CANDIDATES, RUNTIMES, Runtime, all_sites, attach, random_plan, tiny_llama
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

ATTACHMENT: dict[str, Callable[[str, str], str]] = {
    "acts as merged weights do": site_checks.check_merged,
    "keys, bits; detach leaves no trace": site_checks.check_keys,
    "save_pretrained, same bytes": site_checks.check_saved,
    "copy.deepcopy": site_checks.check_copied,
    "exact type and .weight kept": site_checks.check_types,
    "module.forward(x) called directly": site_checks.check_direct,
    "generate, cache equals no cache": site_checks.check_generate,
    "compile: own tensors per plan": site_compile.check_compile_plans,
    "compile: 12 sets of sites": site_compile.check_compile_subsets,
    "compile: fixed slots": site_compile.check_compile_slots,
    "compile: aot_eager and inductor": site_compile.check_inductor,
    "compile: attached after": site_compile.check_late,
    "CUDA graph, fixed slots": site_compile.check_graph,
    "checkpoint: gradients": site_checks.check_checkpoint,
    "4-bit layer": site_checks.check_4bit,
    "accelerate offload": site_checks.check_dispatch,
    **{f"parallel: {case}": functools.partial(site_parallel.check, case) for case in site_parallel.CASES},
}
LOOKUP: dict[str, Callable[[type[Runtime], str], str]] = {
    "compile: override read": site_lookups.check_trace,
    "compile: plan as argument": site_lookups.check_argument,
    "two threads, eager": site_lookups.check_threads,
    "two threads, compiled": site_lookups.check_compiled_threads,
    **{
        f"two asyncio tasks, {how}": functools.partial(site_lookups.check_tasks, how)
        for how in ("eager", "compiled", "compiled, re-entered")
    },
    **{
        f"recompute: {way}, backward {where}": functools.partial(site_lookups.check_recompute, way, where)
        for way in site_lookups.WAYS
        for where in ("inside", "outside", "swapped")
    },
    **{
        f"recompute, compiled: {way}": functools.partial(site_lookups.check_compiled_recompute, way)
        for way in ("plain, non-reentrant", "context_fn, non-reentrant", "own function, non-reentrant")
    },
}


def cell(check: Callable[..., str], *args: Any) -> str:
    """What the check says, or the exception that ended it."""
    try:
        return check(*args)
    except ImportError as error:
        return f"not run: {error.name} is missing"
    except Exception as error:
        return f"NO {type(error).__name__}: {(str(error).splitlines() or [''])[0][:90]}"


def table(title: str, columns: Iterable[str], rows: dict[str, Callable[[int], str]]) -> None:
    """Print a Markdown table row by row as it is measured."""
    names = list(columns)
    print(f"\n| {title} | {' | '.join(names)} |\n|{'---|' * (len(names) + 1)}", flush=True)
    for label, measure in rows.items():
        print(f"| {label} | {' | '.join(measure(column) for column in range(len(names)))} |", flush=True)


# --- time ----------------------------------------------------------------------------------------------------------


def fastest(runs: dict[str, Callable[[], Any]], calls: int = 200, rounds: int = 60) -> dict[str, float]:
    """Microseconds per call of each run: the runs take turns, the least of many rounds counts."""
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            for _ in range(calls):
                run()
            best[name] = min(best[name], (time.perf_counter() - start) / calls * 1e6)
    return best


def site_run(kind: str, runtime: Runtime, rank: int) -> Callable[[], Any]:
    """A call of one 256x256 linear layer with one token; rank 0 is a site with nothing to do, no kind a bare layer."""
    model, x = nn.ModuleDict({"site": nn.Linear(256, 256)}), torch.randn(1, 256)
    plan = random_plan(model, ["site"], rank, 1) if rank else None
    if kind:
        attach(kind, model, ["site"], runtime)
    runtime.plan = plan
    module = model["site"]
    return lambda: module(x)


def time_table() -> None:
    """Microseconds added per call by each candidate and each lookup, and the time to attach 224 sites."""
    runs = {"bare": site_run("", Runtime(), 0)}
    for rank in (0, 8):
        runs |= {f"{kind} {rank}": site_run(kind, Runtime(), rank) for kind in CANDIDATES}
    runs |= {runtime.label: site_run("hook", runtime(), 0) for runtime in RUNTIMES[1:]}
    with torch.inference_mode():
        best = fastest(runs)
    print(f"\nbare layer {best['bare']:.2f} us; the rest is added to it, in us per call")
    added = {name: f"{value - best['bare']:+.2f}" for name, value in best.items()}
    setups = {kind: setup_time(kind) for kind in CANDIDATES}
    kinds = list(CANDIDATES)
    table("time", kinds, {
        "inactive, us": lambda n: added[f"{kinds[n]} 0"],
        "rank 8, us": lambda n: added[f"{kinds[n]} 8"],
        "attach 224 sites, ms": lambda n: f"{setups[kinds[n]][0]:.2f}",
        "detach 224 sites, ms": lambda n: f"{setups[kinds[n]][1]:.2f}",
    })  # fmt: skip
    labels = [runtime.label for runtime in RUNTIMES]
    table("time", labels, {"hook inactive, us": lambda n: added["hook 0" if n == 0 else labels[n]]})


def setup_time(kind: str) -> tuple[float, float]:
    """Milliseconds to attach and to detach 224 sites: 32 layers of 7 linear layers."""
    model = tiny_llama(layers=32)
    keys = [key for key in all_sites(model) if ".layers." in key]
    best = [float("inf")] * 2
    for _ in range(7):
        start = time.perf_counter()
        detach = attach(kind, model, keys, Runtime())
        middle = time.perf_counter()
        detach()
        best = [min(best[0], middle - start), min(best[1], time.perf_counter() - middle)]
    return best[0] * 1e3, best[1] * 1e3


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--only", default="", help="print the rows whose names contain one of these, comma between")
    options = parser.parse_args(arguments)
    wanted = options.only.split(",")
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    torch.backends.cuda.matmul.allow_tf32 = False
    chip = torch.cuda.get_device_name() if options.device == "cuda" else platform.machine()
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, {options.device} ({chip})")

    def rows(checks: dict[str, Callable[..., str]], columns: list[Any]) -> dict[str, Callable[[int], str]]:
        picked = {label: check for label, check in checks.items() if any(word in label for word in wanted)}
        return {
            label: lambda n, check=check: cell(check, columns[n], options.device)  # type: ignore[misc]
            for label, check in picked.items()
        }

    table("attachment", CANDIDATES, rows(ATTACHMENT, list(CANDIDATES)))
    table("lookup", [runtime.label for runtime in RUNTIMES], rows(LOOKUP, list(RUNTIMES)))
    if any(word in "time" for word in wanted):
        time_table()


if __name__ == "__main__":
    main()
