"""One token for each row, as one captured graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import torch

from adapterkit.errors import SelectionError
from adapterkit.kernels.decoding import Counters

from .inputs import Inputs
from .parts import Now
from .stack import PAGE, LowRankStack, bucket
from .twin import Twin

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from adapterkit.runtime import Plan
    from adapterkit.serving.stepping.pool import KVPool
    from adapterkit.shared import SharedModel

    Parts = Sequence[Sequence[tuple[Plan, float]]]

__all__ = ["GraphedStep"]

TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 1e-1, torch.float16: 2e-2}
"""How far the step's logits may be from the base's own, as a part of their size: rounding, and no more."""
TRIED_ROWS, TRIED_TOKENS = 2, 18
"""More than a page."""
LEAST = 1024
"""Graphs are for rows of at most so many tokens, or twice as many, and so on."""


@attrs.frozen(eq=False)
class _Captured:
    graph: Any
    logits: Tensor


class GraphedStep:
    """Decode steps of a base: one new token for each row, each row with its own low-rank adapters.

    The step runs in a :class:`Twin` of the base's model, over the very same weights; the base itself is left alone, and other
    threads may use it meanwhile. A graph is captured when a number of rows, of ranks or of tokens is first needed, each rounded
    up. On a CPU the same is computed in torch, without graphs. Used by one thread.

    Args:
        base: The base.
        pool: Where keys and values are.
        max_rows: The most rows of a step.
        max_rank: The most ranks that the adapters of a step may have together, each rounded up to 8.

    Raises:
        SelectionError: The step does not answer as the base does.
    """

    def __init__(self, base: SharedModel, pool: KVPool, *, max_rows: int, max_rank: int) -> None:
        self._base, self._pool, self._max_rows = base, pool, max_rows
        self._device = base.device
        sites = [site.name for site in base.sites if site.kind == "linear"]
        blank = torch.empty(0, device=base.device)
        self._now = Now([], [], blank, blank, most=0, weights=blank, rank=0, counters=Counters(base.device))
        self._twin = Twin(base.model, sites, self._now)
        try:
            self._try(settle=True)
            self._stack = LowRankStack(self._projections, max_rank, pool.keys[0])
            self._weights = torch.zeros(max_rows, self._stack.most, device=self._device)
            self._try(settle=False)
        except SelectionError:
            raise
        except Exception as error:
            raise SelectionError(f"{type(base.model).__name__} has no graphed step: {error}") from error
        self._inputs: dict[int, Inputs] = {}
        self._graphs: dict[tuple[int, int, int], _Captured] = {}
        self._memory = torch.cuda.graph_pool_handle() if self._device.type == "cuda" else None
        self._set: Any = None

    @torch.no_grad()
    def warm_up(self) -> None:
        """Have every kernel compiled that steps will need, which takes a minute the first time; no request waits for it then."""
        rows, ranks = [1 << power for power in range(self._max_rows.bit_length())], [0]
        while ranks[-1] < self._stack.most:
            ranks.append(bucket(ranks[-1] + 1))
        inputs = self._inputs.setdefault(LEAST, Inputs(self._max_rows, LEAST // self._pool.page_size, self._device))
        for count in {min(count, self._max_rows) for count in (*rows, self._max_rows)}:
            inputs.fill(count, [0], [0], [[]])
            self._run(inputs, count, 0, LEAST)
            with self._stack.filled():
                for rank in ranks:
                    self._run(inputs, count, rank, LEAST)

    def fits(self, plans: Parts) -> bool:
        """Whether rows with these parts, each a plan and its weight, can be in one step."""
        distinct = {id(plan): plan for parts in plans for plan, _ in parts}.values()
        if len(plans) > self._max_rows or not all(map(self._stack.takes, distinct)):
            return False
        return PAGE * sum(map(self._stack.pages_of, distinct)) <= self._stack.most

    @torch.no_grad()
    def __call__(self, ids: list[int], positions: list[int], tables: list[list[int]], parts: Parts) -> Tensor:
        """What comes after one token of each row: logits ``(rows, vocabulary)`` in float32, until the next call.

        The key and the value of each token are in its row's pages afterwards.

        Args:
            ids: The tokens.
            positions: Where each stands in its row; all before it are in the row's pages.
            tables: Each row's pages, with room for the token.
            parts: What each row acts with: plans and their weights; nothing for the base alone.
        """
        rank = self._place(parts)
        rows = min(self._max_rows, 1 << (len(ids) - 1).bit_length())
        most = max(LEAST, 1 << max(positions).bit_length())
        inputs = self._inputs.get(most)
        if inputs is None:
            pages = most // self._pool.page_size
            inputs = self._inputs[most] = Inputs(self._max_rows, pages, self._device)
        inputs.fill(rows, ids, positions, tables)
        if self._memory is None:
            return self._run(inputs, rows, rank, most)[: len(ids)]
        key = (rows, rank, most)
        if key not in self._graphs:
            self._graphs[key] = self._capture(inputs, *key)
        captured = self._graphs[key]
        captured.graph.replay()
        return captured.logits[: len(ids)]

    def _run(self, inputs: Inputs, rows: int, rank: int, most: int) -> Tensor:
        now = self._now
        now.keys, now.values = self._pool.keys, self._pool.values
        now.table, now.lengths, now.most = inputs.table[:rows], inputs.lengths[:rows], most
        now.weights, now.rank = self._weights[:rows], rank
        with self._base.runtime.override(None):  # the hooks of the base's sites are the twin's as well
            return self._twin(inputs.ids[:rows], inputs.positions[:rows]).float()

    def _capture(self, inputs: Inputs, rows: int, rank: int, most: int) -> _Captured:
        stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):  # compiles what is not compiled; writes what the replay will write again
            self._run(inputs, rows, rank, most)
        torch.cuda.current_stream(self._device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        # other threads may allocate meanwhile
        with torch.cuda.graph(graph, pool=self._memory, stream=stream, capture_error_mode="thread_local"):
            logits = self._run(inputs, rows, rank, most)
        return _Captured(graph, logits)

    def _place(self, parts: Parts) -> int:
        """Have the adapters' factors and the rows' weights where the graphs read them; for how many ranks to compute."""
        asked = tuple(tuple((id(plan), weight) for plan, weight in own) for own in parts)
        if self._set is not None and self._set[0] == asked:
            return int(self._set[1])
        self._set = None
        plans = list({id(plan): plan for own in parts for plan, _ in own}.values())
        pages, grown = self._stack.place(plans)
        if grown:
            self._graphs.clear()  # none of them computes what a projection does with its first adapter
        weights = torch.zeros(len(self._weights), self._stack.most)
        for row, own in zip(weights.view(len(weights), -1, PAGE), asked, strict=False):
            for key, weight in own:
                row[list(pages[key])] += weight
        self._weights.copy_(weights)
        rank = self._stack.rank_of(pages)
        self._set = (asked, rank, plans)
        return rank

    @torch.no_grad()
    def _try(self, *, settle: bool) -> None:
        """Answer some tokens one by one, beside the base's own answer.

        Raises:
            SelectionError: They differ.
        """
        model = self._base.model
        known = model.get_input_embeddings().num_embeddings
        tokens = torch.randint(known, (TRIED_ROWS, TRIED_TOKENS), generator=torch.Generator().manual_seed(0))
        tokens = tokens.to(self._device)
        page = self._pool.page_size
        pages = -(-TRIED_TOKENS // page)
        now, rows = self._now, torch.arange(TRIED_ROWS, device=self._device)
        now.keys, now.values = (
            [one.new_zeros(1 + TRIED_ROWS * pages, *one.shape[1:]) for one in whole]
            for whole in (self._pool.keys, self._pool.values)
        )
        now.table = 1 + rows[:, None] * pages + torch.arange(pages, device=self._device)
        now.most, now.weights = LEAST, torch.zeros(TRIED_ROWS, 0, device=self._device)
        found = []
        with self._base.runtime.override(None):
            expected = model(input_ids=tokens, use_cache=False).logits.float()
            for place in range(TRIED_TOKENS):
                now.lengths = torch.full_like(rows, place + 1)
                found.append(self._twin(tokens[:, place], torch.full_like(rows, place)).float())
        error = float((torch.stack(found, dim=1) - expected).norm() / expected.norm())
        if not error <= TOLERANCES.get(self._pool.keys[0].dtype, 0.0):
            raise SelectionError(
                f"{type(model).__name__} does not answer by graphed steps as it does by itself (its logits differ by {error:.1e})"
            )
        if settle:
            self._projections = self._twin.settle()
