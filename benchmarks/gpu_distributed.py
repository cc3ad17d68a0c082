"""Training on two GPUs beside one: tokens per second and the loss of each step, with the base whole in each and divided (FSDP2).

The base has the shape of Llama 3.2 1B and random weights in bfloat16; LoRA r16 on all linear layers, rows of 2,048 tokens, every
one trained. Each run is the command `adapterkit train`, and takes the same steps: one process makes two passes for each, two
processes one each. `--tiny` runs the same on CPUs, where there is nothing to measure, to see that it runs.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import attrs
import torch
from figures import report
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

GIB = 2**30
LLAMA_1B = {
    "vocab_size": 128_256,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "tie_word_embeddings": True,
}
TINY = {
    "vocab_size": 8192,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
COMMAND = "import sys; from adapterkit.cli import main; sys.exit(main())"
WARM = 5
"""Steps before the clock runs."""
SCALING, AGREEMENT = 1.8, 2e-2
"""Two processes are to be so many times as fast as one, and no step's loss is to differ by more."""


@attrs.frozen
class Shape:
    """What is trained on what: the base's configuration, rows in a pass, tokens in a row, steps."""

    base: dict[str, Any]
    rows: int
    length: int
    steps: int


@attrs.frozen
class Measured:
    """What a run did: tokens per second once warm, seconds with all that is around it, peak bytes of a GPU, every step's loss."""

    tokens_per_second: float
    seconds: float
    peak: int
    losses: list[float]


def write_base(folder: Path, shape: Shape, tokenizer: Any) -> None:
    """A base of random weights, as a folder: processes that divide one load it from there."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = LlamaForCausalLM(LlamaConfig(**shape.base, max_position_embeddings=8192))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_rows(file: Path, shape: Shape, tokenizer: Any) -> None:
    """Texts that are longer than a row may be, no two alike; a row for each place in four steps."""
    words = [tokenizer.decode([token]) for token in range(1000, 4000)]
    count = 8 * shape.rows
    order = torch.randint(len(words), (count, 2 * shape.length), generator=torch.Generator().manual_seed(0)).tolist()
    texts = ("".join(words[number] for number in row) for row in order)
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")


def measure(root: Path, shape: Shape, name: str, *options: str) -> Measured:
    """One run, as a command."""
    asked = {
        "output": root / name,
        "format": "text",
        "rank": 16,
        "learning-rate": 1e-4,
        "lr-scheduler-type": "constant",
        "batch-size": shape.rows,
        "max-length": shape.length,
        "max-steps": shape.steps,
        "logging-steps": 1,
        "general-data": root / "general.jsonl",
    }
    words = [word for option, value in asked.items() for word in (f"--{option}", str(value))]
    command = [sys.executable, "-c", COMMAND, "train", str(root / "base"), str(root / "rows.jsonl"), *words]
    start = time.perf_counter()
    subprocess.run([*command, "--no-report", *options], check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    records = [json.loads(line) for line in (root / name / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [record for record in records if "loss" in record]
    peak = json.loads((root / name / "run.json").read_text(encoding="utf-8"))["peak_memory"]
    found = Measured(_speed(steps, 2 * shape.rows * shape.length), seconds, peak, [record["loss"] for record in steps])
    print(json.dumps({"run": name, **attrs.asdict(found)}), file=sys.stderr, flush=True)
    return found


def _speed(steps: list[dict[str, float]], tokens: int) -> float:
    """Tokens per second once warm: the log has those since the run began."""
    when = [tokens * record["step"] / record["tokens_per_second"] for record in steps]
    return tokens * (len(when) - WARM) / (when[-1] - when[WARM - 1])


def difference(one: Measured, other: Measured) -> float:
    """The largest difference of a step's loss."""
    return max(abs(a - b) for a, b in zip(one.losses, other.losses, strict=True))


def main() -> None:
    """One line for each way to share a run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="a small base on the CPU")
    parser.add_argument("--tokenizer", default="examples/base", help="any tokenizer: the words do not matter")
    chosen = parser.parse_args()
    shape = Shape(TINY, 2, 64, 8) if chosen.tiny else Shape(LLAMA_1B, 8, 2048, 30)
    tokenizer = AutoTokenizer.from_pretrained(chosen.tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_base(root / "base", shape, tokenizer)
        write_rows(root / "rows.jsonl", shape, tokenizer)
        (root / "general.jsonl").write_text(json.dumps({"text": "Of ships and seas."}) + "\n", encoding="utf-8")
        alone = measure(root, shape, "alone", "--gradient-accumulation-steps", "2")
        ways = {
            "two processes": measure(root, shape, "shared", "--processes", "2"),
            "two processes, base divided (FSDP2)": measure(root, shape, "divided", "--processes", "2", "--fsdp"),
        }
    for name, found in ways.items():
        ratio, apart = found.tokens_per_second / alone.tokens_per_second, difference(found, alone)
        divided = "FSDP2" in name
        report(
            f"LoRA r16 of a 1B base, {shape.rows} × {shape.length} tokens a pass: {name}",
            f"{found.tokens_per_second:,.0f} tokens/s, {found.peak / GIB:.2f} GiB a GPU, losses within {apart:.1e}",
            f"{alone.tokens_per_second:,.0f} tokens/s, {alone.peak / GIB:.2f} GiB (one process)",
            f"{ratio:.2f}×",
            f"the same losses, within {AGREEMENT}" + ("" if divided else f"; at least {SCALING}×"),
            met=apart < AGREEMENT and (divided or ratio >= SCALING),
        )


if __name__ == "__main__":
    main()
