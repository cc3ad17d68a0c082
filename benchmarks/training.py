"""Rows trained per second on Banking77, beside transformers' Trainer with PEFT: same rows, batch size, steps and final loss.

The peer runs at its best settings here: float32 as we do (half precision is slower on CPUs without support for it), batches of
rows of similar length (its fastest order; ours is random and packed, which learns more in as many steps), the fused AdamW, rows
tokenized beforehand, no evaluation, no checkpoints, no logging to anywhere.
"""

import contextlib
import csv
import json
import random
import sys
import tempfile
from pathlib import Path
from statistics import median

import peft
import torch
from figures import report, seconds
from transformers import AutoModelForCausalLM, DataCollatorForSeq2Seq, Trainer, TrainingArguments

from adapterkit import Base
from adapterkit.data.dataset import Encoded, encode_rows
from adapterkit.data.rendering import Renderer

EXAMPLES = Path(__file__).parent.parent / "examples"
BASE = EXAMPLES / "base"
COLUMNS = {"prompt": "text", "completion": "category"}
ROUNDS, ROWS, HELD_OUT, BATCH, RATE = 3, 1600, 200, 32, 4e-3
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def ours(base: Base, rows: list[dict[str, str]], tokens: int, folder: Path) -> float:
    """Rows per second of one pass over rows of so many tokens; the adapter lies in ``folder/adapter``."""
    base.train(
        rows,
        columns=COLUMNS,
        output=folder,
        rank=8,
        alpha=16.0,
        learning_rate=RATE,
        batch_size=BATCH,
        warmup_ratio=0.05,
        logging_steps=1000,
        report=False,
    )
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    speed = next(record["tokens_per_second"] for record in records if "loss" in record)
    return float(speed) * len(rows) / tokens


def peers(base: Base, encoded: Encoded, folder: Path) -> float:
    """The same through Trainer and PEFT."""
    model = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
    config = peft.LoraConfig(r=8, lora_alpha=16, target_modules=TARGETS, task_type="CAUSAL_LM")
    model = peft.get_peft_model(model, config)
    trainer = Trainer(
        model,
        TrainingArguments(
            str(folder / "trainer"),
            per_device_train_batch_size=BATCH,
            num_train_epochs=1,
            learning_rate=RATE,
            warmup_steps=0.05,
            use_cpu=True,
            train_sampling_strategy="group_by_length",
            logging_strategy="no",
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            dataloader_pin_memory=False,
            seed=42,
        ),
        train_dataset=[{"input_ids": list(one.input_ids), "labels": list(one.labels)} for one in encoded.examples],
        data_collator=DataCollatorForSeq2Seq(base.tokenizer, padding=True),
    )
    with contextlib.redirect_stdout(sys.stderr):  # Trainer prints its log where our figures go
        took = seconds(trainer.train)
    model.save_pretrained(folder / "adapter")
    return len(encoded.examples) / took


def main() -> None:
    """Interleaved, so that a slow moment of the machine falls on both."""
    base = Base(BASE)
    with (EXAMPLES / "data" / "banking77" / "train.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    random.Random(0).shuffle(rows)
    rows, held_out = rows[:ROWS], rows[ROWS : ROWS + HELD_OUT]
    encoded = encode_rows(rows, Renderer(base.tokenizer, 1024), base.registry, columns=COLUMNS)
    with tempfile.TemporaryDirectory() as root:
        mine, theirs = Path(root, "ours"), Path(root, "peers")
        speeds = [(ours(base, rows, encoded.report.tokens, mine), peers(base, encoded, theirs)) for _ in range(ROUNDS)]
        losses = [
            base.evaluate(held_out, columns=COLUMNS, adapter=base.load(folder / "adapter"), compare=False)["loss"]
            for folder in (mine, theirs)
        ]
    ratio = median(a / b for a, b in speeds)
    report(
        f"train LoRA r8 on {ROWS} rows of Banking77, batch {BATCH}",
        f"{median(a for a, _ in speeds):,.0f} rows/s",
        f"{median(b for _, b in speeds):,.0f} rows/s (Trainer + PEFT)",
        f"{ratio:.2f}×",
        "1.5×",
        met=ratio >= 1.5,
    )
    report(
        f"  its loss on {HELD_OUT} held-out rows",
        f"{losses[0]:.3f}",
        f"{losses[1]:.3f}",
        f"{losses[0] / losses[1]:.2f}",
        "at most 1.0",
        met=losses[0] <= losses[1],
    )


if __name__ == "__main__":
    main()
