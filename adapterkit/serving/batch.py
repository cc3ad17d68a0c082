"""The batch: which requests are in it, what each step does for them, and what becomes of one that fails."""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from typing import TYPE_CHECKING

import attrs
import torch

from adapterkit.errors import AdapterkitError, EngineError, SelectionError
from adapterkit.runtime import compose
from adapterkit.runtime.actions import Chain, LayerAction
from adapterkit.sites import INPUT

from .stepping.choosing import choose

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor

    from adapterkit.resident import Resident
    from adapterkit.runtime import Plan

    from .asking import Choice
    from .jobs import Job
    from .stepping import Row, Runner
    from .stepping.runner import Parts

__all__ = ["Batch", "Stepped"]

logger = logging.getLogger("adapterkit")

_LATER: Plan = {}
"""Stands for a plan for which there is no room yet."""


@attrs.define
class Stepped:
    """What a step has brought.

    Attributes:
        finished: Requests whose answers are whole.
        failed: Requests that came to nothing, and why.
        begun: Requests whose first token is there.
        tokens: New tokens by the name of their adapters.
        rows: How many requests it was for.
    """

    finished: list[Job] = attrs.field(factory=list)
    failed: list[tuple[Job, Exception]] = attrs.field(factory=list)
    begun: list[Job] = attrs.field(factory=list)
    tokens: Counter[str] = attrs.field(factory=Counter)
    rows: int = 0


class Batch:
    """The requests that are answered at this moment, in the order in which they began. Used by the engine's thread alone."""

    def __init__(self, runner: Runner, *, prefill_tokens: int, composed_bytes: int) -> None:
        self.runner, self._prefill_tokens, self._most_composed = runner, prefill_tokens, composed_bytes
        self.jobs: list[Job] = []
        self._composed: OrderedDict[str, tuple[Plan, int]] = OrderedDict()
        """What several adapters do together, and the bytes that it takes; the longest unused first."""

    def add(self, job: Job, residents: Sequence[Resident]) -> bool:
        """Give a request a place; False where there is no room for it now. Raises what cannot be answered at all."""
        parts = [(one.plan, weight) for one, (_, weight) in zip(residents, job.answer.choice.parts, strict=True)]
        plan = self._plan(job.answer.choice, parts, sum(one.bytes for one in residents))
        if plan is _LATER or not job.begin(self.runner.pool, plan, self._acting(plan), parts):
            return False
        job.alone = _acts_itself(plan)
        self.jobs.append(job)
        return True

    def drop(self, job: Job) -> None:
        """Its place is free."""
        self.jobs.remove(job)
        job.leave(self.runner.pool)

    def make_room(self) -> list[Job]:
        """Have a page for every request's next token; those that began last give theirs up where there are not enough.

        Returns:
            The requests that were interrupted, and are to go on later.
        """
        interrupted: list[Job] = []
        for job in list(self.jobs):
            while job.pages is not None and not self.runner.pool.extend(job.pages, len(job.tokens)):
                last = self.jobs[-1]
                self.drop(last)
                interrupted.append(last)
        return interrupted

    def step(self) -> Stepped:
        """Read more of the prompts that are not read yet, and add a token to each answer under way."""
        done = Stepped()
        reading = self._reading()
        writing = [(job, job.row(1)) for job in self.jobs if job.todo == 1]
        for work in (reading, writing):
            self._advance(work, done)
        return done

    def _reading(self) -> list[tuple[Job, Row]]:
        """Parts of prompts, the first that came first, as many as may be read in one step; padding counts."""
        chosen: list[tuple[Job, Row]] = []
        widest = 0
        for job in self.jobs:
            if job.todo == 1:
                continue
            row = job.row(self._prefill_tokens)
            widest = max(widest, len(row.tokens))
            if chosen and widest * (len(chosen) + 1) > self._prefill_tokens:
                break
            chosen.append((job, row))
        return chosen

    def _advance(self, work: Sequence[tuple[Job, Row]], done: Stepped) -> None:
        for part in _apart(work):
            going: list[tuple[Job, Tensor]] = []
            for (job, row), outcome in zip(part, self._logits([row for _, row in part]), strict=True):
                if isinstance(outcome, Exception):
                    done.failed.append((job, outcome))
                    continue
                job.cached += len(row.tokens)
                done.rows += 1
                if len(row.tokens) > 1:  # others may begin with the same while this one is answered
                    self.runner.pool.keep(row.pages, job.tokens[: job.cached])
                if not job.todo:
                    going.append((job, outcome))
            if going:
                self._choose(going, done)

    def _choose(self, going: Sequence[tuple[Job, Tensor]], done: Stepped) -> None:
        logits = torch.stack([one for _, one in going])
        tokens = choose(logits, [job.chooser for job, _ in going])
        for (job, row), token in zip(going, tokens, strict=True):
            if isinstance(token, Exception):
                weighted = any(weight != 1.0 for _, weight in job.answer.choice.parts)
                done.failed.append((job, SelectionError(f"{token}; lower the weights") if weighted else token))
                continue
            if not job.generated:
                done.begun.append(job)
            done.tokens[job.name] += 1
            if job.take(token, row):
                done.finished.append(job)

    def _logits(self, rows: Sequence[Row]) -> Sequence[Tensor | Exception]:
        """What comes next for each row; where a step fails, for each adapter by itself: one that fails takes no other along."""
        try:
            return list(self.runner.step(rows))
        except Exception as error:  # a plugin's layer, a driver or the memory may raise anything
            plans = {id(row.plan) for row in rows}
            if len(plans) == 1:
                logger.exception("a step has failed")
                return [_said(error)] * len(rows)
        outcomes: dict[int, Tensor | Exception] = {}
        for plan in plans:
            numbers = [number for number, row in enumerate(rows) if id(row.plan) == plan]
            outcomes.update(zip(numbers, self._logits([rows[number] for number in numbers]), strict=True))
        return [outcomes[number] for number in range(len(rows))]

    def _plan(self, choice: Choice, parts: Parts, size: int) -> Plan | None:
        """What the sites do for a request; what several adapters do together is kept for the next one that wants it."""
        if not parts:
            return None
        if len(parts) == 1 and parts[0][1] == 1.0:
            return parts[0][0]
        kept = self._composed.pop(choice.digest, None)
        if kept is None and not self._has_room(size):
            return _LATER
        self._composed[choice.digest] = kept = kept or (compose(parts), size)
        return kept[0]

    def _acting(self, plan: Plan | None) -> Plan | None:
        """A plan without what it puts before the prompt, which has acted once its tokens are there; one for all who follow it."""
        if not plan or INPUT not in plan:
            return plan
        for job in self.jobs:
            if job.whole is plan:
                return job.plan
        return {site: action for site, action in plan.items() if site != INPUT} or None

    def _has_room(self, size: int) -> bool:
        """Whether there is room for one more plan of several; what nobody uses goes for it."""
        used = {job.answer.choice.digest for job in self.jobs}
        for digest in [one for one in self._composed if one not in used]:
            if self._bytes() + size <= self._most_composed:
                break
            del self._composed[digest]
        return not self._composed or self._bytes() + size <= self._most_composed

    def _bytes(self) -> int:
        return sum(size for _, size in self._composed.values())


def _apart(work: Sequence[tuple[Job, Row]]) -> Iterable[list[tuple[Job, Row]]]:
    """All that may be mixed, together; those of a method that acts through its own layers, each adapter for itself."""
    mixed = [(job, row) for job, row in work if not job.alone]
    if mixed:
        yield mixed
    alone: dict[int, list[tuple[Job, Row]]] = {}
    for job, row in work:
        if job.alone:
            alone.setdefault(id(row.plan), []).append((job, row))
    yield from alone.values()


def _acts_itself(plan: Plan | None) -> bool:
    steps = (
        step
        for action in (plan or {}).values()
        for step in (action.actions if isinstance(action, Chain) else (action,))
    )
    return any(isinstance(step, LayerAction) for step in steps)


def _said(error: Exception) -> Exception:
    """What the one who asked is told; what is not ours may hold anything."""
    return error if isinstance(error, AdapterkitError) else EngineError(f"a step has failed: {type(error).__name__}")
