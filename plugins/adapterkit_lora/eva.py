"""EVA: A starts from the main directions of what each target is given (Paischer et al. 2024, arXiv 2410.07170), by PEFT."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from adapterkit import ConfigError, TrainingError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor

    from adapterkit import Base, Example

__all__ = ["directions"]

ENOUGH = 4
"""How many trained tokens a batch has for each direction, at least: with fewer than one, PEFT would wait for ever."""
MOST_PASSES = 200
"""PEFT goes on until the directions hold still; a few passes are usual."""


def directions(base: Base, examples: Sequence[Example], ranks: Mapping[str, int]) -> dict[str, Tensor]:
    """``(rank, in_features)`` by site: the main directions of its inputs on the rows' trained tokens.

    The ranks stay what they are: PEFT's redistribution of ranks (``rho`` over 1) is not done.

    Raises:
        ConfigError: PEFT is not installed, or the rows are too few.
        TrainingError: The directions do not settle.
    """
    try:
        from peft import EvaConfig, LoraConfig
        from peft.tuners.lora.eva import get_eva_state_dict
    except ImportError as error:
        raise _refusal(f"needs PEFT, which cannot be imported ({error}): pip install 'adapterkit[peft]'") from error
    batches = list(_batches(examples, ENOUGH * max(ranks.values()), base.device))
    config = LoraConfig(
        r=max(ranks.values()),
        rank_pattern={f"^{name}": rank for name, rank in ranks.items()},
        target_modules=list(ranks),
        init_lora_weights="eva",
        eva_config=EvaConfig(rho=1.0),
    )
    passes = iter(range(MOST_PASSES * len(batches)))

    def forward(model: Any, batch: Mapping[str, Tensor]) -> None:
        if next(passes, None) is None:
            raise TrainingError(f"EVA's directions did not settle in {MOST_PASSES} passes over the rows")
        model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False)

    with base.using(None):
        found: dict[str, Tensor] = get_eva_state_dict(
            base.model, batches, config, forward_fn=forward, show_progress_bar=False
        )
    return found


def _batches(examples: Sequence[Example], tokens: int, device: torch.device) -> Iterator[dict[str, Tensor]]:
    """The rows in batches of at least so many trained tokens, padded on the right."""
    rows: list[Example] = []
    count, made = 0, 0
    for example in examples:
        rows.append(example)
        count += sum(label != -100 for label in example.labels)
        if count >= tokens:
            yield _collated(rows, device)
            rows, count, made = [], 0, made + 1
    if not made:
        raise _refusal(f"needs {tokens} trained tokens, four for each direction; these rows have {count}")


def _collated(rows: Sequence[Example], device: torch.device) -> dict[str, Tensor]:
    longest = max(len(row.input_ids) for row in rows)

    def padded(lists: Sequence[Sequence[int]], fill: int) -> Tensor:
        return torch.tensor([[*one, *[fill] * (longest - len(one))] for one in lists], device=device)

    return {
        "input_ids": padded([row.input_ids for row in rows], 0),
        "attention_mask": padded([[1] * len(row.input_ids) for row in rows], 0),
        "labels": padded([row.labels for row in rows], -100),
    }


def _refusal(reason: str) -> ConfigError:
    return ConfigError("options of LoRA do not fit", [f"init_lora_weights: 'eva' {reason}"])
