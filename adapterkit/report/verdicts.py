"""The three questions that a run is judged by: what was gained, what was forgotten, what it cost."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import attrs

from .numbers import capital, change, count, duration, memory, money, number
from .scores import all_scores, headline, words
from .series import series

if TYPE_CHECKING:
    from .reading import RunFolder
    from .scores import Score

__all__ = [
    "Forgetting",
    "Verdict",
    "cost",
    "forgetting",
    "gain",
    "measured_forgetting",
    "price",
    "result",
    "scored_rows",
]

State = Literal["good", "none", "bad", "unknown"]
LITTLE, MUCH = 0.01, 0.10
"""A rise of general perplexity below the first is within what another seed would do; beyond the second it shows in answers."""
MOST_LOSS = 700.0
"""exp() of more is no float."""


@attrs.frozen(kw_only=True)
class Verdict:
    """A box at the top of the report.

    Attributes:
        title: The question.
        state: How it turned out.
        verdict: That in two or three words.
        figure: The one number.
        about: What the number says, in a sentence.
        facts: Labels and values below it.
    """

    title: str
    state: State
    verdict: str
    figure: str
    about: str
    facts: tuple[tuple[str, str], ...] = ()


@attrs.frozen
class Forgetting:
    """Perplexity of general text before the first step and with the adapter that was kept."""

    before: float
    after: float

    @property
    def rise(self) -> float:
        """By what part of itself it has risen; below 0 when it has fallen."""
        return self.after / self.before - 1


def gain(run: RunFolder) -> Verdict:
    """What the adapter does better than the base, on rows that it was not trained on."""
    score = headline(all_scores(run.evaluation))
    if score is None:
        return _gain_in_loss(run)
    on = f"on {scored_rows(run)}"
    facts = [("with the adapter", _with_interval(score, score.value, score.interval))]
    if score.base is None:
        return Verdict(
            title="Gain",
            state="unknown",
            verdict="base not measured",
            figure=score.say(score.value),
            about=f"{capital(words(score.name))} {on}; the base alone was not scored beside it.",
            facts=tuple(facts),
        )
    facts.append(("the base alone", _with_interval(score, score.base, score.base_interval)))
    state, verdict = _judged(score)
    return Verdict(
        title="Gain",
        state=state,
        verdict=verdict,
        figure=score.gain,
        about=f"{capital(words(score.name))} {on}, beside the base alone.",
        facts=tuple(facts),
    )


def _judged(score: Score) -> tuple[State, str]:
    if score.better is None:
        return "none", "as the base"
    if score.clear is False:
        return "none", "no clear difference"
    clearly = "" if score.clear is None else "clearly "
    return ("good", f"{clearly}better") if score.better else ("bad", f"{clearly}worse")


def _with_interval(score: Score, value: float, interval: tuple[float, float] | None) -> str:
    return score.say(value) + (f" ({score.say_interval(interval)})" if interval else "")


def _gain_in_loss(run: RunFolder) -> Verdict:
    held_out = series(run.log, "eval_loss")
    kept = held_out.at(run.run.best_step)
    if kept is None:
        missing = "No held-out rows: give eval_data or eval_split, and the base is scored beside the adapter."
        if run.run.eval_data:
            missing = "The held-out rows were never scored: the run did not get so far."
        return Verdict(title="Gain", state="unknown", verdict="not measured", figure="–", about=missing)
    start = held_out.points[0]
    if start[0] != 0 or len(held_out.points) == 1:
        about = "Loss on held-out rows; there is no score of the base beside it."
        return Verdict(title="Gain", state="unknown", verdict="base not measured", figure=number(kept), about=about)
    better = kept < start[1]
    return Verdict(
        title="Gain",
        state="good" if better else "bad",
        verdict="better" if better else "not better",
        figure=change(_exp(start[1]), _exp(kept)),
        about="Perplexity on held-out rows, beside the base alone. Answers were not scored: the run did not end well."
        if run.evaluation is None and run.run.status in ("failed", "interrupted", "running")
        else "Perplexity on held-out rows, beside the base alone.",
        facts=(("with the adapter", number(_exp(kept))), ("the base alone", number(_exp(start[1])))),
    )


def measured_forgetting(run: RunFolder) -> Forgetting | None:
    """Perplexity of general text at step 0 and with the adapter that was kept; None when either is missing."""
    general = series(run.log, "general_loss")
    if len(general.points) < 2 or general.points[0][0] != 0:
        return None
    kept = general.at(run.run.best_step)
    return None if kept is None else Forgetting(_exp(general.points[0][1]), _exp(kept))


def forgetting(run: RunFolder) -> Verdict:
    """How much worse the base has become at text that it was not trained on."""
    found = measured_forgetting(run)
    if found is None:
        about = "No general text was held out: give general_data, and its perplexity is measured beside the gain."
        if series(run.log, "general_loss").points:
            about = "General text was measured only once: the run did not get to a second evaluation."
        return Verdict(title="Forgetting", state="unknown", verdict="not measured", figure="–", about=about)
    state: State = "good" if found.rise < LITTLE else "none" if found.rise < MUCH else "bad"
    verdict = {"good": "hardly any", "none": "some", "bad": "much"}[state]
    replayed = (run.run.replay or {}).get("rows")
    return Verdict(
        title="Forgetting",
        state=state,
        verdict=verdict,
        figure=change(found.before, found.after),
        about="Perplexity of held-out general text, beside the base alone; higher is worse.",
        facts=(
            ("with the adapter", number(found.after)),
            ("the base alone", number(found.before)),
            (
                "replay",
                f"{count(replayed)} general rows mixed in" if replayed else "none: replay= mixes general rows in",
            ),
        ),
    )


def cost(run: RunFolder, price_per_hour: float | None = None) -> Verdict:
    """Time, tokens, memory, and money where an hour's price is given."""
    told = run.run
    speed = told.tokens / told.seconds if told.tokens and told.seconds else None
    facts = [
        ("tokens seen", count(told.tokens)),
        ("tokens per second, all included", count(speed)),
        ("peak memory", memory(told.peak_memory)),
        ("trained parameters", count(told.parameters)),
    ]
    sum_of = price(run, price_per_hour)
    if price_per_hour is not None:
        facts.append((f"money, at {money(price_per_hour)} an hour", money(sum_of)))
    where = told.device or "an unknown device"
    processes = f", {told.processes} processes" if (told.processes or 1) > 1 else ""
    return Verdict(
        title="Cost",
        state="unknown",
        verdict="",
        figure=duration(told.seconds),
        about=f"On {where.upper() if where == 'cpu' else where}{processes}.",
        facts=tuple(fact for fact in facts if fact[1] != "–"),
    )


def price(run: RunFolder, price_per_hour: float | None) -> float | None:
    """What the run's time costs, in the currency of the price of an hour of the whole machine."""
    if price_per_hour is None or run.run.seconds is None:
        return None
    return run.run.seconds / 3600 * price_per_hour


def scored_rows(run: RunFolder) -> str:
    """On which rows the scores are."""
    evaluation = run.evaluation or {}
    rows, of = evaluation.get("rows"), evaluation.get("held_out_rows")
    if not isinstance(rows, int):
        return "held-out rows"
    return f"{count(rows)}{f' of {count(of)}' if isinstance(of, int) and of > rows else ''} held-out rows"


def result(run: RunFolder) -> str:
    """The run in one sentence."""
    score = headline(all_scores(run.evaluation))
    if score is not None and score.base is not None:
        verb = "went from" if score.better is None else "rose from" if score.value > score.base else "fell from"
        rows = (run.evaluation or {}).get("rows")
        on = f"On {count(rows)} held-out rows" if isinstance(rows, int) else "On held-out rows"
        return (
            f"{on}, {words(score.name)} {verb} {score.say(score.base)} with the base alone to {score.say(score.value)}."
        )
    for name, what in (("eval_loss", "The loss on held-out rows"), ("loss", "The training loss")):
        found = series(run.log, name)
        if len(found.points) > 1:
            (first, before), (last, after) = found.points[0], found.points[-1]
            verb = "fell" if after < before else "rose"
            return (
                f"{what} {verb} from {number(before)} at step {count(first)} to {number(after)} at step {count(last)}."
            )
    return "Nothing was measured yet."


def _exp(loss: float) -> float:
    return math.exp(min(loss, MOST_LOSS))
