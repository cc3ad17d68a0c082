"""One step of the base for rows that are at different places of their sequences and follow different adapters."""

from __future__ import annotations

import functools
import inspect
import logging
import operator
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs
import torch

from adapterkit.data.padding import keeps_state
from adapterkit.errors import SelectionError
from adapterkit.head import head_at
from adapterkit.runtime import MOST_MASKED_RANK, InputAction, Stacks, row_plan
from adapterkit.sites import INPUT

from .cache import StepCache
from .graphed import GraphedStep
from .masks import Masks
from .pool import KVPool, KVShape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from adapterkit.runtime import Plan, RowPlan
    from adapterkit.shared import SharedModel

    from .pool import Pages

__all__ = ["RANKS", "Parts", "Row", "Runner"]

logger = logging.getLogger("adapterkit")

Parts: TypeAlias = "Sequence[tuple[Plan, float]]"
"""What each of a row's adapters does, and its weight."""

TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""How far the engine's logits may be from the base's own, as a part of their size: rounding, and no more. A base that is further
from itself when it reads its tokens one by one sets the bound itself."""
RANKS = 16
"""Of adapters for each row of a graphed step, on average: rows with more are computed apart."""
MOST_OFF = 0.2
"""Beyond this it is not rounding any more."""
TRIED_TOKENS = 21
"""More than a page."""


@attrs.frozen
class Row:
    """What one sequence has to do in a step.

    Attributes:
        plan: What the sites do; None is the base alone. What an adapter does at the input is not in it.
        table: Embeddings of its virtual tokens, ``(n, hidden_size)``; None without any.
        pages: Where its keys and values are.
        start: The position of the first token of this step.
        tokens: This step's; -1 - k is the k-th virtual one.
        parts: The plans of which ``plan`` is made, with their weights.
    """

    plan: Plan | None
    table: Tensor | None
    pages: Pages
    start: int
    tokens: Sequence[int]
    parts: Parts = ()


class Runner:
    """Runs a base step by step, in one thread.

    Args:
        base: The base.
        kv_bytes: How much memory keys and values may take.
        most_tokens: How many tokens are ever kept at once; there is no more room than for these.
        reuse: Whether pages are kept for later sequences.
        graphed_rows: Of how many rows a graphed step is at most; 0 is none at all.

    Raises:
        SelectionError: The base keeps a state instead of keys and values, or does not answer by pages as it does by itself.
    """

    def __init__(
        self, base: SharedModel, *, kv_bytes: int, most_tokens: int, reuse: bool = True, graphed_rows: int = 0
    ) -> None:
        self._base, self._model, self._runtime = base, base.model, base.runtime
        self.device: torch.device = base.device
        if keeps_state(self._model) or self._model.config.is_encoder_decoder:
            raise SelectionError(
                f"the engine serves bases that keep keys and values, and {_name(self._model)} does not"
            )
        if "position_ids" not in inspect.signature(self._model.forward).parameters:
            raise SelectionError(
                f"{_name(self._model)} cannot be told where its tokens stand (position_ids): the engine does not serve it yet"
            )
        self._masks = Masks.of(self._model.config)
        self._known: int = self._model.get_input_embeddings().num_embeddings
        shape, tokens, expected, bound = self._looked_at()
        self.vocabulary = expected.shape[1]
        most_pages = -(-most_tokens // KVPool.page_size) + 1
        self.pool = KVPool(shape, min(most_pages, kv_bytes // shape.page_bytes), self.device, reuse=reuse)
        self._stacks = Stacks(MOST_MASKED_RANK)
        self._last: tuple[list[Plan | None], RowPlan] | None = None
        self._graphed: _Graphed | None = None
        self._check(tokens, expected, bound)
        if graphed_rows:
            self._graphed = _Graphed(base, self.pool, graphed_rows)

    @torch.no_grad()
    def step(self, rows: Sequence[Row]) -> Tensor:
        """What comes after the last token of each row: logits ``(rows, vocabulary)`` in float32.

        The keys and values of all tokens are in the rows' pages afterwards, where there must be room for them.
        """
        if self._graphed is None or any(len(row.tokens) > 1 or row.tokens[0] < 0 for row in rows):
            return self._step(rows)
        quick, slow = self._graphed.apart(rows)
        after = torch.empty(len(rows), self.vocabulary, device=self.device)
        if quick:
            after[quick] = self._graphed.step([rows[number] for number in quick])
        if slow:
            after[slow] = self._step([rows[number] for number in slow])
        return after

    def _step(self, rows: Sequence[Row]) -> Tensor:
        width = max(len(row.tokens) for row in rows)
        tables = self._tables(rows)
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        for number, row in enumerate(rows):
            first = self._known + tables.get(id(row.table), (0, None))[0] + 1
            ids[number, : len(row.tokens)] = torch.tensor([one if one >= 0 else first - 2 - one for one in row.tokens])
        starts = torch.tensor([row.start for row in rows], device=self.device)
        places = starts[:, None] + torch.arange(width, device=self.device)
        lengths = torch.tensor([len(row.tokens) for row in rows], device=self.device)
        # what stands for padding has a place too: models look it up
        places = torch.minimum(places, (starts + lengths - 1)[:, None])
        cache = StepCache(self.pool, [(row.pages, row.start, len(row.tokens)) for row in rows], self.device)
        last = torch.zeros(len(rows), width, dtype=torch.bool, device=self.device)
        last[torch.arange(len(rows), device=self.device), lengths - 1] = True
        with self._runtime.override(self._plan(rows, tables)), head_at(self._model, last if width > 1 else None):
            logits = self._model(
                input_ids=ids.to(self.device),
                position_ids=places,
                attention_mask=self._masks.make(starts, width, cache.length),
                past_key_values=cache,
                use_cache=True,
            ).logits
        after: Tensor = logits.reshape(len(rows), -1).float()
        return after

    def _tables(self, rows: Sequence[Row]) -> dict[int, tuple[int, Tensor]]:
        """The tables of virtual tokens that this step needs, each with where it begins among all of them."""
        tables: dict[int, tuple[int, Tensor]] = {}
        for row in rows:
            if row.table is not None and id(row.table) not in tables and min(row.tokens) < 0:
                tables[id(row.table)] = (sum(len(one) for _, one in tables.values()), row.table)
        return tables

    def _plan(self, rows: Sequence[Row], tables: dict[int, tuple[int, Tensor]]) -> Plan | None:
        plan = self._plan_of_rows([row.plan for row in rows], together=all(len(row.tokens) == 1 for row in rows))
        if not tables:
            return plan
        joined = torch.cat([table for _, table in tables.values()])
        action = InputAction(lambda: joined)
        if plan is None:
            return {INPUT: action}
        return plan.including({INPUT: action}) if hasattr(plan, "including") else {**plan, INPUT: action}

    def _plan_of_rows(self, plans: list[Plan | None], *, together: bool) -> Plan | None:
        if all(plan is plans[0] for plan in plans):
            return plans[0]
        if not together:
            return row_plan(plans, self.device, together=False)
        last = self._last  # most steps are for the same rows as the one before
        if last is None or len(last[0]) != len(plans) or any(map(operator.is_not, last[0], plans)):
            self._last = last = plans, row_plan(plans, self.device, self._stacks)
        return last[1]

    # -- which bases

    @torch.no_grad()
    def _looked_at(self) -> tuple[KVShape, list[int], Tensor, float]:
        """What the base keeps of a token, some tokens, its own logits ``(tokens, vocabulary)`` for them, and how near to be."""
        from transformers import DynamicCache

        tokens = torch.randint(self._known, (1, TRIED_TOKENS), generator=torch.Generator().manual_seed(0))
        cache, other = (DynamicCache(config=self._model.config) for _ in range(2))
        ids = tokens.to(self.device)
        with self._runtime.override(None):
            logits = self._model(input_ids=ids, past_key_values=cache, use_cache=True).logits[0].float()
            alone = [
                self._model(input_ids=one, past_key_values=other, use_cache=True).logits[0] for one in ids.T[:, None]
            ]
        noise = _off(torch.cat(alone).float(), logits)
        layers: list[Any] = [(getattr(layer, "keys", None), getattr(layer, "values", None)) for layer in cache.layers]
        if not all(isinstance(key, torch.Tensor) and isinstance(value, torch.Tensor) for key, value in layers):
            raise SelectionError(
                f"{_name(self._model)} keeps more than keys and values: the engine does not serve it yet"
            )
        sizes = tuple((key.shape[1], key.shape[3], value.shape[3]) for key, value in layers)
        dtype = layers[0][0].dtype
        bound = min(MOST_OFF, max(TOLERANCES.get(dtype, 0.0), 2 * noise))
        return KVShape(sizes, dtype), tokens[0].tolist(), logits, bound

    def _check(self, tokens: Sequence[int], expected: Tensor, bound: float) -> None:
        """Answer some tokens by pages, in a batch, a part of them one by one.

        Raises:
            SelectionError: That is not what the base answers.
        """
        pages, other = self.pool.begin("", tokens)[0], self.pool.begin("", tokens)[0]
        try:
            if not (self.pool.extend(pages, len(tokens)) and self.pool.extend(other, len(tokens))):
                raise SelectionError(f"there is no room for the keys and values of {2 * len(tokens)} tokens")
            row = functools.partial(Row, None, None)
            cut = len(tokens) - 3
            found = [self.step([row(pages, 0, tokens[:cut]), row(other, 0, tokens[:2])])[0]]
            found += [self.step([row(pages, place, tokens[place : place + 1])])[0] for place in range(cut, len(tokens))]
        finally:
            self.pool.end(pages)
            self.pool.end(other)
        error = _off(torch.stack(found), expected[cut - 1 :])
        if not error <= bound:
            raise SelectionError(
                f"{_name(self._model)} does not answer by pages as it does by itself (its logits differ by {error:.1e}): the "
                "engine does not serve it yet"
            )


class _Graphed:
    """Decode steps as CUDA graphs, for the rows that can be in one."""

    def __init__(self, base: SharedModel, pool: KVPool, most: int) -> None:
        self._most = most
        self._step: GraphedStep | None = None
        try:
            self._step = GraphedStep(base, pool, max_rows=most, max_rank=RANKS * most)
            self._step.warm_up()
        except SelectionError as error:
            logger.warning("decode steps run without CUDA graphs: %s", error)
        self._last: Any = None

    def apart(self, rows: Sequence[Row]) -> tuple[list[int], list[int]]:
        """The numbers of the rows that a graphed step takes together, and of the others."""
        asked = tuple(tuple((id(plan), weight) for plan, weight in row.parts) for row in rows)
        if self._last is None or self._last[0] != asked:
            parts = [row.parts for row in rows]  # kept: while these plans live, no others have their ids
            self._last = (asked, parts, self._apart(parts))
        quick, slow = self._last[2]
        return quick, slow

    def _apart(self, parts: Sequence[Parts]) -> tuple[list[int], list[int]]:
        numbers = list(range(len(parts)))
        if self._step is None:
            return [], numbers
        if self._step.fits(parts):
            return numbers, []
        quick: list[int] = []
        for number in numbers:
            if self._step.fits([parts[one] for one in (*quick, number)]):
                quick.append(number)
        return quick, [number for number in numbers if number not in quick]

    def step(self, rows: Sequence[Row]) -> Tensor:
        """The same as the runner's."""
        if self._step is None:
            raise RuntimeError("there is no graphed step")
        return self._step(
            [row.tokens[0] for row in rows],
            [row.start for row in rows],
            [row.pages.table for row in rows],
            [row.parts for row in rows],
        )


def _off(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def _name(model: Any) -> str:
    return type(model).__name__
