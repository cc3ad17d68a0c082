"""What a plan says of a run's memory and speed, beside what the run takes on this GPU: one JSON line for each.

Bases with random weights, of the shapes of Llama 3.2 1B and Llama 3.1 8B; LoRA (rank 16 on all linear layers) and QLoRA (nf4),
three batch shapes each, every token trained. A base is made on the GPU, in 4 bits layer by layer.

`--keep FILE` fits the numbers that no shape tells to the lines of such a run, and writes them, with the lines, to where plans
read them:

    python benchmarks/gpu_plan.py > lines.jsonl && python benchmarks/gpu_plan.py --keep lines.jsonl

`--tiny` runs the same on a CPU, where there is nothing to measure, to see that it runs.
"""

import argparse
import datetime as dt
import gc
import json
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import attrs
import torch
from qlora_memory import TINY, materialise, rows_of
from transformers import AutoTokenizer, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM
from transformers.integrations.bitsandbytes import replace_with_bnb_linear

from adapterkit import Base
from adapterkit.planning.calibration import Measured, Measurements, measurements
from adapterkit.planning.devices import find_device
from adapterkit.planning.fitting import estimate_of, fit

KEPT = Path(__file__).parent.parent / "adapterkit" / "planning" / "measured.json"
GIB = 2**30
SHAPES = ((1, 512), (4, 2048), (8, 1024))
STEPS = 4
RUNS = tuple(
    (base, method, rows, length, options)
    for base in ("1B", "8B")
    for method, choices in (
        ("lora", ({"gradient_checkpointing": True}, {})),
        ("qlora", ({}, {"tokens_per_pass": None})),
    )
    for rows, length in SHAPES
    for options in choices
    if (rows, length) != (8, 1024) or options or method == "qlora"
)
EXTRA = (
    ("8B", "lora", 4, 2047, {"gradient_checkpointing": True}),  # a mask whose rows are not aligned
    ("8B", "qlora", 8, 1024, {"tokens_per_pass": None, "activation_offload": True}),
    ("1B", "prompt_tuning", 4, 2048, {}),
    ("1B", "full", 1, 512, {}),
)


def config_of(shape: dict[str, Any]) -> LlamaConfig:
    return LlamaConfig(
        **shape, max_position_embeddings=8192, rope_parameters={"rope_type": "default", "rope_theta": 5e5}
    )


def make(shape: dict[str, Any], device: torch.device, *, packed: bool) -> Any:
    """A Llama with random weights in bfloat16, its linear layers but the head in NF4 where ``packed``."""
    config = config_of(shape)
    with torch.device("meta"):
        model = LlamaForCausalLM(config).to(torch.bfloat16)
    if packed:
        settings = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
        settings.bnb_4bit_compute_dtype = torch.bfloat16
        model = replace_with_bnb_linear(model, modules_to_not_convert=["lm_head"], quantization_config=settings)
        model.config.quantization_config = settings
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, materialise(parameter, module, device))
    model.tie_weights()
    with device:
        model.model.rotary_emb = type(model.model.rotary_emb)(config)
    return model.eval()


def measure(base: Base, method: str, rows: int, length: int, options: dict[str, Any]) -> dict[str, float]:
    """Peaks of a short run, with all that it does before and after its steps, and its speed after the first of them."""
    on_gpu = base.device.type == "cuda"
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    masks = []
    seeing = base.model.register_forward_pre_hook(
        lambda _, __, named: masks.append(torch.is_grad_enabled() and named.get("attention_mask") is not None),
        with_kwargs=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        adapter = base.train(
            rows_of(base.tokenizer, STEPS * rows, length),
            method=method,
            batch_size=rows,
            max_length=length,
            max_steps=STEPS,
            logging_steps=1,
            output=folder,
            report=False,
            **options,
        )
        log = [json.loads(line) for line in Path(folder, "log.jsonl").read_text().splitlines()]
    seeing.remove()
    base.unload(adapter)
    speeds = [line["tokens_per_second"] for line in log if "tokens_per_second" in line]
    tokens = rows * length
    took = len(speeds) * tokens / speeds[-1] - tokens / speeds[0]  # the first step's time is left out
    free, total = torch.cuda.mem_get_info() if on_gpu else (0, 0)
    reserved = torch.cuda.memory_reserved() if on_gpu else 0
    return {
        "allocated": torch.cuda.max_memory_allocated() / GIB if on_gpu else 0.0,
        "reserved": torch.cuda.max_memory_reserved() / GIB if on_gpu else 0.0,
        "tokens_per_second": (len(speeds) - 1) * tokens / took,
        "context": (total - free - reserved) / GIB,
        "packed": any(masks),
    }


def where(device: torch.device) -> dict[str, Any]:
    """When, on what and with what it was measured."""
    return {
        "date": dt.datetime.now(tz=dt.UTC).date().isoformat(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "versions": {name: version(name) for name in ("torch", "transformers", "bitsandbytes")},
    }


def compared(run: Measured, bases: dict[str, Any], device: Any) -> dict[str, Any]:
    """What the plan says of a run, and how far it is off."""
    said = estimate_of(run, bases, device)
    off = said["allocated"] / run.allocated - 1 if run.allocated else 0.0
    return {**{f"plan_{name}": round(value, 3) for name, value in said.items()}, "error": round(off, 4)}


def run_all(chosen: argparse.Namespace) -> None:
    """Every run that there is memory for."""
    device = torch.device("cpu" if chosen.tiny else "cuda")
    tokenizer = AutoTokenizer.from_pretrained(chosen.tokenizer)
    bases = {"1B": TINY, "8B": TINY} if chosen.tiny else measurements().bases
    runs = [run for run in (*RUNS, *(EXTRA if chosen.extra else ())) if run[0] in chosen.bases]
    base, made = None, ("", False)
    for name, method, rows, length, options in sorted(runs, key=lambda run: (run[0], run[1] == "qlora")):
        if made != (name, method == "qlora"):
            base = None
            gc.collect()
            torch.cuda.empty_cache()
            made = (name, method == "qlora")
            base = Base(make(bases[name], device, packed=made[1]), tokenizer=tokenizer)
        length = 64 if chosen.tiny else length  # noqa: PLW2901
        say = {"base": name, "method": method, "rows": rows, "length": length, "options": options}
        began = time.perf_counter()
        try:
            found = measure(base, method, rows, length, options)
        except torch.cuda.OutOfMemoryError as error:
            print(json.dumps({**say, "failed": str(error).splitlines()[0]}), flush=True)
            torch.cuda.empty_cache()
            continue
        context = found.pop("context")
        run = Measured(
            **say, packed=bool(found.pop("packed")), **{key: round(value, 4) for key, value in found.items()}
        )
        took = round(time.perf_counter() - began, 1)
        line = {**attrs.asdict(run), "context": round(context, 3), "took": took, **where(device)}
        print(json.dumps({**line, **({} if chosen.bare else compared(run, bases, find_device()))}), flush=True)


def keep(file: str) -> None:
    """Fit to the lines of ``file`` and write what was fitted and what it was fitted to."""
    lines = [json.loads(line) for line in Path(file).read_text().splitlines() if line.startswith("{")]
    names = {field.name for field in attrs.fields(Measured)}
    runs = tuple(Measured(**{k: v for k, v in line.items() if k in names}) for line in lines if "allocated" in line)
    context = max(line["context"] for line in lines if "context" in line)
    new = Measurements(
        device=lines[0]["device"],
        date=lines[0]["date"],
        versions=lines[0]["versions"],
        bases=measurements().bases,
        runs=runs,
        fitted=fit(runs, measurements().bases, find_device(lines[0]["device"]), context=context * GIB),
    )
    KEPT.write_text(json.dumps(attrs.asdict(new), indent=1) + "\n", encoding="utf-8")
    print(json.dumps(attrs.asdict(new.fitted)), file=sys.stderr)


def main() -> None:
    """Measure, or keep what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="small bases on the CPU")
    parser.add_argument("--extra", action="store_true", help="other methods and options beside them")
    parser.add_argument("--bare", action="store_true", help="measure only")
    parser.add_argument("--bases", nargs="+", default=["1B", "8B"])
    parser.add_argument("--tokenizer", default="examples/base", help="any tokenizer: the words do not matter")
    parser.add_argument("--keep", metavar="FILE", help="fit to the lines of FILE")
    chosen = parser.parse_args()
    if chosen.keep:
        keep(chosen.keep)
    else:
        run_all(chosen)


if __name__ == "__main__":
    main()
