"""Run folders as training leaves them, made without training."""

import json
import math

RUN = {
    "schema": 1,
    "method": "lora",
    "config": {"rank": 8, "alpha": 16.0, "target_modules": ["q_proj", "v_proj"]},
    "objective": "sft",
    "options": {"learning_rate": 2e-3, "max_length": 1024, "seed": 42, "epochs": 1.0},
    "base": {"name": "examples/base", "revision": "", "fingerprint": "131a8aa7"},
    "plugin": "adapterkit 0.1.0",
    "quantize": None,
    "data": {
        "digest": "d" * 64,
        "rows": 2400,
        "tokens": 84769,
        "trained_tokens": 26324,
        "truncated_rows": 12,
        "truncated_tokens": 3110,
        "unusable_rows": 3,
    },
    "eval_data": {"digest": "e" * 64, "rows": 200, "tokens": 7000, "trained_tokens": 2200},
    "replay": None,
    "steps": 150,
    "versions": {"python": "3.11.7", "torch": "2.13.0"},
    "device": "cpu",
    "processes": 1,
    "parameters": 302592,
    "started": "2026-11-23T04:59:10+00:00",
    "finished": "2026-11-23T05:00:12+00:00",
    "seconds": 62.3,
    "tokens": 84769,
    "peak_memory": 1234567890,
    "status": "finished",
    "reason": None,
    "last_step": 150,
    "best_step": None,
    "adapter": "5b6ac240" * 8,
}
EVALUATION = {
    "rows": 200,
    "confidence": 0.95,
    "scores": {"loss": 0.36, "perplexity": 1.43, "accuracy": 0.815},
    "base": {"loss": 11.9, "perplexity": 147266.6, "accuracy": 0.005},
    "intervals": {"loss": [0.33, 0.39], "perplexity": [1.39, 1.48], "accuracy": [0.755, 0.865]},
    "base_intervals": {"loss": [11.6, 12.1], "perplexity": [109097.0, 179871.0], "accuracy": [0.0, 0.02]},
    "examples": [
        {"prompt": "Where is my card?", "expected": "card_arrival", "base": "yes", "adapter": "card_arrival"},
        {"prompt": "I am 17", "expected": "age_limit", "base": "no", "adapter": "lost_card"},
        {"prompt": "Do you do refunds?", "expected": "refunds", "base": "refunds", "adapter": "fees"},
    ],
}


def records(steps=150, every=2):
    """A log: losses that fall, evaluations every 25 steps, general text that is forgotten a little."""
    log = [{"step": 0, "eval_loss": 11.9, "general_loss": 3.4}]
    for step in range(every, steps + 1, every):
        loss = 12 * math.exp(-step / 40) + 0.3 + 0.1 * math.sin(step)
        speed = 1500 + 50 * math.cos(step)
        rate = 2e-3 * (1 - step / (steps + 1))
        log.append(
            {"step": step, "loss": loss, "learning_rate": rate, "grad_norm": 2 + loss, "tokens_per_second": speed}
        )
        if step % 50 == 0:
            log.append({"step": step, "eval_loss": loss * 0.9})
            log.append({"step": step, "general_loss": 3.4 + 0.0004 * step})
    return log


def make_run(folder, *, log=None, evaluation=EVALUATION, unusable=(), **changes):
    """A run's folder; ``changes`` are fields of ``run.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps({**RUN, **changes}), encoding="utf-8")
    write_lines(folder / "log.jsonl", records() if log is None else log)
    if evaluation is not None:
        (folder / "evaluation.json").write_text(json.dumps(evaluation), encoding="utf-8")
    if unusable:
        write_lines(folder / "unusable.jsonl", unusable)
    return folder


def write_lines(path, values):
    path.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")
