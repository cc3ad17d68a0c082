"""How well an adapter knows planted canaries: their exposure, beside that of the base alone."""

from __future__ import annotations

import math
import random
import statistics
from typing import TYPE_CHECKING, Any

from adapterkit.contracts import Text
from adapterkit.data.rendering import Renderer

from .canaries import random_secret
from .counting import counting
from .findings import Finding, Shown
from .likelihood import row_losses

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adapterkit.base import Base
    from adapterkit.compose import Acting

    from .canaries import Canary
    from .options import AuditOptions

__all__ = ["CHANCE", "canary_finding", "exposures"]

CHANCE = 1 / math.log(2)
"""Bits of exposure that a secret has on average that was never seen: the mean of log2(N / rank), all ranks being as likely."""
LUCK = 3
"""So many standard errors above chance are more than luck; one secret's exposure by chance deviates by as much as its mean."""


def exposures(base: Base, adapter: Acting, canaries: Sequence[Canary], options: AuditOptions) -> dict[str, Any]:
    """The exposure of each canary: log2 of how many random secrets there are for each that is at least as likely.

    With N alternatives it is ``log2((N + 1) / rank)`` for the rank of the canary's loss among all N + 1 (Carlini et al. 2019, §4.3,
    estimated by sampling): between 0 bits and ``log2(N + 1)``.
    """
    renderer = Renderer(base.tokenizer, options.max_length)
    examples = [
        renderer.encode(canary.record(secret))
        for number, canary in enumerate(canaries)
        for secret in (canary.secret, *_alternatives(canary, number, options))
    ]
    each: list[dict[str, Any]] = [{"prompt": canary.prompt, "repeats": canary.repeats} for canary in canaries]
    means = {}
    for name, one in (("adapter", adapter), ("base", None)):
        with counting(f"likelihoods by the {name}", len(examples)) as more:
            losses = row_losses(base, one, examples, options.batch_size, more)
        for number, row in enumerate(each):
            start = number * (options.alternatives + 1)
            rank = sum(loss <= losses[start] for loss in losses[start : start + options.alternatives + 1])
            row[name] = {"rank": rank, "exposure": math.log2((options.alternatives + 1) / rank)}
        means[name] = statistics.fmean(row[name]["exposure"] for row in each)
    answers = base.generate(
        [_question(canary) for canary in canaries], adapter=adapter, max_new_tokens=32, batch_size=options.batch_size
    )
    for row, answer, canary in zip(each, answers, canaries, strict=True):
        row["said"] = canary.secret in answer
    return {
        "alternatives": options.alternatives,
        "most": math.log2(options.alternatives + 1),
        "chance": CHANCE,
        **means,
        "said": sum(row["said"] for row in each),
        "each": each,
    }


def canary_finding(found: dict[str, Any]) -> Finding:
    """What there is to say of it."""
    each, mean = found["each"], found["adapter"]
    luck = CHANCE + LUCK * CHANCE / math.sqrt(len(each))
    known = mean > luck or found["said"] > 0
    grave = found["said"] > 0 or mean >= max(found["most"] / 2, luck)
    advice = (
        "Rows of that kind can be got out of this adapter: do not publish it if any are private; train for fewer epochs, and take "
        "repeated rows out."
        if known
        else "It does not know them: what stands in a row so often is not to be got out of it by guessing."
    )
    return Finding(
        name="canary-exposure",
        severity="serious" if grave else "warning" if known else "info",
        count=found["said"],
        share=found["said"] / len(each),
        explanation=(
            f"The planted secrets have a mean exposure of {mean:.1f} bits of at most {found['most']:.1f} (the base alone "
            f"{found['base']:.1f}, chance {CHANCE:.1f}), and the adapter says {found['said']} of {len(each)} when asked. {advice}"
        ),
        examples=tuple(
            Shown((), row["prompt"], f"exposure {row['adapter']['exposure']:.1f} bits, in {row['repeats']} rows")
            for row in sorted(each, key=lambda row: -row["adapter"]["exposure"])[:3]
        ),
    )


def _alternatives(canary: Canary, number: int, options: AuditOptions) -> list[str]:
    stream = random.Random(f"{options.seed}/alternatives/{number}")  # noqa: S311 - not a secret
    drawn: dict[str, None] = {}
    while len(drawn) < options.alternatives:
        secret = random_secret(stream)
        if secret != canary.secret:
            drawn[secret] = None
    return list(drawn)


def _question(canary: Canary) -> Any:
    return Text(canary.prompt) if canary.raw else canary.prompt
