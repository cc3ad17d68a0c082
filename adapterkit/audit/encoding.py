"""Rows as the base's tokenizer sees them: what it cannot use, what is cut, and what never learns to end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from adapterkit.contracts import Example
from adapterkit.data.rendering import Renderer
from adapterkit.data.reports import Unusable
from adapterkit.errors import DataError

from .counting import counting
from .findings import NEVER, Finding, several, severity_of
from .lengths import histogram

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from .findings import Histogram
    from .items import Item
    from .options import AuditOptions
    from .quoting import Quoting

__all__ = ["Encoding", "encode"]

TOGETHER = 1000
UNCUT = 2**31


@attrs.define
class Encoding:
    """What was seen.

    Attributes:
        unusable: Rows that the tokenizer or ``max_length`` cannot use.
        cut: Rows that are longer than ``max_length``, each with the tokens that it loses, and those of them that are trained.
        endless: Rows whose last trained token ends nothing.
        prompts: The tokens that are not trained, row by row, before anything is cut.
        completions: Those that are.
    """

    unusable: list[Unusable] = attrs.field(factory=list)
    cut: list[tuple[Item, int, int]] = attrs.field(factory=list)
    endless: list[Item] = attrs.field(factory=list)
    prompts: list[int] = attrs.field(factory=list)
    completions: list[int] = attrs.field(factory=list)

    def lengths(self) -> tuple[Histogram, ...]:
        """Histograms of prompts and completions."""
        if not self.completions:
            return ()
        return (
            histogram("prompt and template", "tokens", self.prompts),
            histogram("completion", "tokens", self.completions),
        )

    def findings(self, rows: int, quoting: Quoting, max_length: int) -> list[Finding]:
        """What there is to say of it; unusable rows are told by :func:`~adapterkit.audit.completions.unusable_rows`."""
        return [*self._cut(rows, quoting, max_length), *self._endless(rows, quoting)]

    def _cut(self, rows: int, quoting: Quoting, max_length: int) -> list[Finding]:
        if not self.cut:
            return []
        share = len(self.cut) / rows
        torn = [one for one in self.cut if one[2]]
        lost = {item.where: (tokens, trained) for item, tokens, trained in self.cut}
        advice = (
            "A completion that lost its beginning teaches nonsense: raise max_length, or take these rows out."
            if torn
            else "Raise max_length where the beginning of a prompt matters."
        )
        return [
            Finding(
                name="truncated-rows",
                severity="serious" if torn else severity_of(share, warning=0.01, serious=NEVER),
                count=len(self.cut),
                share=share,
                explanation=f"{several(len(self.cut), 'row')} longer than max_length={max_length}, and cut. {advice}",
                counts={
                    "tokens lost": sum(tokens for _, tokens, _ in self.cut),
                    "rows that lose part of a completion": len(torn),
                },
                examples=quoting.each(
                    (item for item, _, _ in torn or self.cut),
                    lambda item: "loses {} tokens, {} of the completion".format(*lost[item.where]),
                ),
            )
        ]

    def _endless(self, rows: int, quoting: Quoting) -> list[Finding]:
        if not self.endless:
            return []
        share = len(self.endless) / rows
        return [
            Finding(
                name="missing-end-tokens",
                severity=severity_of(share, warning=0.0, serious=0.1),
                count=len(self.endless),
                share=share,
                explanation=(
                    f"{several(len(self.endless), 'row')} without a trained token that ends the answer: from such rows no model "
                    "learns to stop. Raw text that was cut has none; else use rows of prompt and completion, or a tokenizer whose "
                    "template closes the assistant's turns."
                ),
                examples=quoting.each(self.endless),
            )
        ]


def encode(items: Sequence[Item], tokenizer: Any, options: AuditOptions) -> Encoding:
    """Encode rows as training does."""
    seen = Encoding()
    whole, cut = Renderer(tokenizer, UNCUT), Renderer(tokenizer, options.max_length)
    stops = set(cut.stop_ids())
    with counting("encoding", len(items)) as more:
        for start in range(0, len(items), TOGETHER):
            part = items[start : start + TOGETHER]
            for item, one in zip(part, whole.encode_all([item.record for item in part]), strict=True):
                _note(seen, item, one, cut, options.max_length, stops)
            more(len(part))
    return seen


def _note(
    seen: Encoding, item: Item, whole: Example | Exception, cut: Renderer, max_length: int, stops: set[int]
) -> None:
    if not isinstance(whole, Example):
        seen.unusable.append(Unusable(item.where, str(whole)))
        return
    trained = _trained(whole)
    seen.prompts.append(len(whole.input_ids) - len(trained))
    seen.completions.append(len(trained))
    one = whole
    if len(whole.input_ids) > max_length:
        try:
            one = cut.encode(item.record)
        except DataError as error:
            seen.unusable.append(Unusable(item.where, str(error)))
            return
        seen.cut.append((item, one.truncated, len(trained) - len(_trained(one))))
    if _trained(one)[-1] not in stops:
        seen.endless.append(item)


def _trained(example: Example) -> list[int]:
    return [label for label in example.labels if label != -100]
