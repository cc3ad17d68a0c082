"""Several adapters on the same rows: scores side by side, and what can be said of their differences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from adapterkit.config import build_config
from adapterkit.errors import SelectionError

from .intervals import difference_interval
from .page import page
from .result import Evaluation, plain
from .samples import on_samples
from .scoring import ScoreOptions, check_adapter, prepare, score_all
from .significance import compare_scores

if TYPE_CHECKING:
    import os

    from adapterkit.base import Base
    from adapterkit.compose import Acting

    from .intervals import Interval
    from .samples import Sampled

__all__ = ["BASE", "Comparison", "Difference", "compare"]

BASE = "base"
"""What the base alone is called where nobody gave it a name."""


@attrs.frozen(kw_only=True)
class Difference:
    """How far two adapters are apart on the same rows.

    Attributes:
        score: Such as ``"accuracy"``.
        first: The name of one adapter.
        second: The name of the other.
        value: The score of the first less that of the second.
        interval: Between what values it may well lie on all rows of the kind: ``(low, high)``; None where these rows do not say.
        p_value: How often chance alone would make two equal adapters differ as much, or more; two-sided.
        test: ``"mcnemar"`` or ``"permutation"``.
    """

    score: str
    first: str
    second: str
    value: float
    interval: Interval | None
    p_value: float
    test: str


@attrs.frozen(eq=False, kw_only=True)
class Comparison(Mapping[str, Evaluation]):
    """Evaluations by name, of the same rows.

    Attributes:
        evaluations: By the adapters' names, the base among them.
        differences: For each score, of each two.
    """

    evaluations: Mapping[str, Evaluation]
    differences: tuple[Difference, ...] = attrs.field(default=(), repr=False)

    def __getitem__(self, name: str) -> Evaluation:
        return self.evaluations[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.evaluations)

    def __len__(self) -> int:
        return len(self.evaluations)

    @property
    def answers(self) -> list[dict[str, Any]]:
        """For each row that expects an answer: ``row``, ``prompt``, ``expected``, and ``answers`` by name."""
        first = next(iter(self.values()))
        return [
            {
                "row": row,
                "prompt": first.prompts[place],
                "expected": first.references[place],
                "answers": {name: one.predictions[place] for name, one in self.items()},
            }
            for place, row in enumerate(first.answered)
        ]

    def differing(self) -> list[dict[str, Any]]:
        """Those of :attr:`answers` that are not the same from all."""
        return [one for one in self.answers if len(set(one["answers"].values())) > 1]

    def to_json(self, *, answers: bool = False) -> dict[str, Any]:
        """All of it as JSON values; with ``answers``, every row's answers too."""
        values: dict[str, Any] = {
            "adapters": {name: one.to_json() for name, one in self.items()},
            "differences": [plain(attrs.asdict(one)) for one in self.differences],
            "differing_rows": len(self.differing()),
        }
        return {**values, "answers": self.answers} if answers else values

    def to_html(self, path: str | os.PathLike[str] | None = None, *, blind: bool = False, title: str = "") -> str:
        """One page on which people read the answers side by side and mark the better one; it fetches nothing.

        Args:
            path: A file to write it to.
            blind: Begin with names hidden and answers shuffled; a reader may change it.
            title: The page's heading.

        Returns:
            The page.
        """
        text = page(self, blind=blind, title=title or " · ".join(self))
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text


def compare(
    base: Base,
    data: Any,
    adapters: Mapping[str, Acting | None],
    *,
    columns: Mapping[str, str] | None = None,
    format: str | None = None,  # noqa: A002 - the word that users know
    **options: Any,
) -> Comparison:
    """See :meth:`adapterkit.Base.compare`."""
    contenders = _contenders(adapters)
    chosen = build_config(ScoreOptions, options, what="options of compare")
    found = score_all(base, prepare(base, data, contenders.values(), columns, format, chosen), contenders)
    return Comparison(evaluations=found, differences=tuple(_differences(found, chosen)))


def _contenders(adapters: Any) -> dict[str, Acting | None]:
    """Adapters by name, the base before them where it is not among them.

    Raises:
        SelectionError: They are no adapters by name, or fewer than two with the base.
    """
    if not isinstance(adapters, Mapping) or not all(isinstance(name, str) and name.strip() for name in adapters):
        raise SelectionError(f"compare takes adapters by name, as in {{'short': adapter, …}}, not {adapters!r:.200}")
    for one in adapters.values():
        check_adapter(one, "compare")
    if all(one is None for one in adapters.values()):
        raise SelectionError("compare needs an adapter: the base alone has nothing to be compared with")
    if None in adapters.values():
        return dict(adapters)
    if BASE in adapters:
        raise SelectionError(f"{BASE!r} is what the base alone is called; give this adapter another name")
    return {BASE: None, **adapters}


def _differences(found: Mapping[str, Evaluation], options: ScoreOptions) -> Iterator[Difference]:
    """Each score of each two, all from the same samples of the rows."""
    first = next(iter(found.values()))
    rows = {True: len(first.losses), False: len(first.answered)}
    by_score = [name for name in first.sampled if all(name in one.sampled for one in found.values())]
    for name in by_score:
        count = rows[name == "loss"]
        if count < 2 or not options.resamples:
            continue
        scores = {adapter: one.sampled[name] for adapter, one in found.items()}
        sampled = on_samples(scores, count, options.resamples, options.seed)
        for one, other in combinations(found, 2):
            yield _difference(name, one, other, scores, sampled, options)


def _difference(
    name: str, one: str, other: str, scores: Mapping[str, Sampled], sampled: Mapping[str, Any], options: ScoreOptions
) -> Difference:
    # the later is what is looked at, the earlier what it is held against: an adapter less the base
    pair, both = (scores[other], scores[one]), (sampled[other], sampled[one])
    p_value, test = compare_scores(*pair, options.seed, options.resamples)
    return Difference(
        score=name,
        first=other,
        second=one,
        value=pair[0].value - pair[1].value,
        interval=difference_interval(*pair, both, options.confidence),
        p_value=p_value,
        test=test,
    )
