"""The share of completions that an adapter repeats word for word, beside the base alone and beside rows that it has not seen."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import attrs

from adapterkit.contracts import Conversation, Preference, Text
from adapterkit.data.rendering import Renderer
from adapterkit.errors import DataError

from .counting import counting
from .findings import Finding, Shown
from .labels import LONGEST_LABEL

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from adapterkit.base import Base
    from adapterkit.compose import Acting

    from .items import Item
    from .options import AuditOptions
    from .quoting import Quoting

__all__ = ["repeats", "verbatim"]

OFTEN = 3
"""A short completion of so many rows is a label: to answer it is the task, not memory."""
ROOM = 4
"""Tokens that an answer may have beyond what is compared: text may fall into tokens otherwise than it did in training."""
NOTABLE, GRAVE = 0.05, 0.25
"""Differences of shares; of 100 rows, 5 are more than luck."""


@attrs.frozen
class _Question:
    """What is asked, and what would be a repetition."""

    item: Item
    prompt: Any
    expected: str
    whole: bool


def verbatim(
    base: Base,
    adapter: Acting,
    items: Sequence[Item],
    held_out: Sequence[Item] | None,
    options: AuditOptions,
) -> tuple[dict[str, Any], list[Item]]:
    """Ask adapter and base for completions of rows drawn at random.

    Returns:
        Shares as JSON values, None where no row could be asked; and the training rows that the adapter repeats and the base does
        not.
    """
    found: dict[str, Any] = {"tokens": options.memory_tokens}
    repeated: list[Item] = []
    often = Counter(item.completion for item in items)
    for name, rows in (("training", items), ("held_out", held_out)):
        asked = _questions(base, rows or (), often, options)
        found[name] = {"rows": len(asked), "adapter": None, "base": None}
        if not asked:
            continue
        by_adapter = _repeated(base, adapter, asked, options)
        by_base = _repeated(base, None, asked, options)
        found[name] |= {"adapter": sum(by_adapter) / len(asked), "base": sum(by_base) / len(asked)}
        if name == "training":
            pairs = zip(asked, by_adapter, by_base, strict=True)
            repeated = [one.item for one, mine, bare in pairs if mine and not bare]
    return found, repeated


def repeats(found: dict[str, Any], repeated: Sequence[Item], quoting: Quoting) -> Finding:
    """What there is to say of it."""
    seen, unseen = found["training"], found["held_out"]
    if not seen["rows"]:
        return Finding(
            name="not-checked",
            severity="info",
            count=0,
            explanation=(
                "Left out: repeated completions. Every completion is a label, which a good adapter has to repeat. Plant canaries "
                "to see what an adapter keeps of its rows (plant_canaries, or --plant on the command line)."
            ),
        )
    reference, what = (unseen["adapter"], "held-out rows") if unseen["rows"] else (seen["base"], "the base alone")
    gap = seen["adapter"] - reference
    beside = f", {unseen['adapter']:.0%} of {unseen['rows']} held-out rows" if unseen["rows"] else ""
    advice = (
        f"That is {gap:.0%} more than for {what}: train for fewer epochs, take repeated rows out, or lower the rank."
        if gap >= NOTABLE
        else f"That is no more than chance beside {what}."
    )
    return Finding(
        name="repeated-completions",
        severity="serious" if gap >= GRAVE else "warning" if gap >= NOTABLE else "info",
        count=round(seen["adapter"] * seen["rows"]),
        share=seen["adapter"],
        explanation=(
            f"Of {seen['rows']} training rows drawn at random, the adapter repeats {seen['adapter']:.0%} word for word from their "
            f"prompts, the base alone {seen['base']:.0%}{beside}. {advice}"
        ),
        examples=tuple(Shown((item.where,), quoting.text(item.completion)) for item in repeated[: quoting.most]),
    )


def _questions(base: Base, items: Sequence[Item], often: Counter[str], options: AuditOptions) -> list[_Question]:
    rows = [item for item in items if len(item.completion) > LONGEST_LABEL or often[item.completion] < OFTEN]
    random.Random(options.seed).shuffle(rows)  # noqa: S311 - not a secret
    asked = []
    for question in _possible(base, rows, options):
        asked.append(question)
        if len(asked) == options.memory_rows:
            break
    return asked


def _possible(base: Base, items: Sequence[Item], options: AuditOptions) -> Iterator[_Question]:
    """Rows that can be asked: one that is too long, or that the template refuses, is passed over for another."""
    renderer = Renderer(base.tokenizer, options.max_length)
    for item in items:
        prompt, completion = _parts(item)
        if prompt is None:
            continue
        try:
            length = len(renderer.prompt(prompt))
        except DataError:
            continue
        ids = base.tokenizer(completion, add_special_tokens=False)["input_ids"]
        expected = renderer.decode(ids[: options.memory_tokens])
        if expected and length + options.memory_tokens + ROOM <= options.max_length:
            yield _Question(item, prompt, expected, len(ids) <= options.memory_tokens)


def _parts(item: Item) -> tuple[Any, str]:
    """What to ask, and what training would have said; raw text is asked for its second half."""
    record = item.record
    if isinstance(record, Text):
        words = record.text.split(" ")
        first, second = " ".join(words[: len(words) // 2]), " ".join(words[len(words) // 2 :])
        return (Text(first) if first.strip() else None), f" {second}"
    messages = (*record.prompt, *record.chosen) if isinstance(record, Preference) else record.messages
    last = max((place for place, message in enumerate(messages) if message.train), default=0)
    if not last or not messages[last].content:
        return None, ""
    if record.tools:
        return Conversation(messages[:last], record.tools), messages[last].content
    return messages[:last], messages[last].content


def _repeated(base: Base, adapter: Acting | None, asked: Sequence[_Question], options: AuditOptions) -> list[bool]:
    with counting(f"asking the {'base' if adapter is None else 'adapter'}", len(asked)) as more:
        answers = base.generate(
            [one.prompt for one in asked],
            adapter=adapter,
            max_new_tokens=options.memory_tokens + ROOM,
            batch_size=options.batch_size,
            progress=more,
        )
    pairs = zip(answers, asked, strict=True)
    return [answer == one.expected if one.whole else answer.startswith(one.expected) for answer, one in pairs]
