"""Attention by pages for one token of each row, in Triton. Products are summed in float32."""

# ruff: noqa: ANN001, ANN202, N803 - what is under @triton.jit is Triton's language, which has no such types
# ruff: noqa: PLR0915, SIM108 - and what it takes at once is one function
# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False, disallow-untyped-decorators=False, disallow-untyped-calls=False

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

from .decoding_on_gpu import FEWEST, is_last

if TYPE_CHECKING:
    from .decoding import Counters

__all__ = ["attend", "store"]

SPLIT = 256
"""Tokens that one program attends to."""


@triton.jit
def _store(
    q, k, v, cos, sin, turned, keys, values, table, lengths,
    q_row, k_row, v_row, table_row,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, SIZE: tl.constexpr, PLACES: tl.constexpr, PAGE: tl.constexpr,
    TURN: tl.constexpr,
):  # fmt: skip
    """One head of one row: a query is turned; a key is turned and goes into its page, with the value."""
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    half: tl.constexpr = SIZE // 2
    place = tl.arange(0, PLACES)
    inside = place < half
    is_query = head < HEADS
    kv = tl.maximum(head - HEADS, 0)
    if is_query:
        source = q + row * q_row + head * SIZE
    else:
        source = k + row * k_row + kv * SIZE
    x_1 = tl.load(source + place, mask=inside, other=0.0)
    x_2 = tl.load(source + half + place, mask=inside, other=0.0)
    if TURN:
        a_1, a_2 = x_1.to(tl.float32), x_2.to(tl.float32)
        cos_1 = tl.load(cos + row * SIZE + place, mask=inside, other=0.0).to(tl.float32)
        cos_2 = tl.load(cos + row * SIZE + half + place, mask=inside, other=0.0).to(tl.float32)
        sin_1 = tl.load(sin + row * SIZE + place, mask=inside, other=0.0).to(tl.float32)
        sin_2 = tl.load(sin + row * SIZE + half + place, mask=inside, other=0.0).to(tl.float32)
        x_1, x_2 = (a_1 * cos_1 - a_2 * sin_1).to(x_1.dtype), (a_2 * cos_2 + a_1 * sin_2).to(x_2.dtype)
    if is_query:
        goal = turned + (row * HEADS + head) * SIZE
        tl.store(goal + place, x_1, mask=inside)
        tl.store(goal + half + place, x_2, mask=inside)
    else:
        last = tl.load(lengths + row) - 1
        page = tl.load(table + row * table_row + last // PAGE).to(tl.int64)
        slot = ((page * PAGE + last % PAGE) * KV_HEADS + kv) * SIZE
        tl.store(keys + slot + place, x_1, mask=inside)
        tl.store(keys + slot + half + place, x_2, mask=inside)
        value = v + row * v_row + kv * SIZE
        tl.store(values + slot + place, tl.load(value + place, mask=inside), mask=inside)
        tl.store(values + slot + half + place, tl.load(value + half + place, mask=inside), mask=inside)


def store(
    q: Tensor, k: Tensor, v: Tensor, turn: tuple[Tensor, Tensor] | None,
    keys: Tensor, values: Tensor, table: Tensor, lengths: Tensor,
) -> Tensor:  # fmt: skip
    """See :func:`adapterkit.kernels.decoding.store`."""
    (_, page, kv_heads, size), rows = keys.shape, len(q)
    heads = q.shape[1] // size
    turned = q.new_empty(rows, heads, size) if turn else q
    cos, sin = turn or (q, q)
    with torch.cuda.device_of(q):
        _store[(rows, (heads if turn else 0) + kv_heads)](
            q, k, v, cos, sin, turned, keys, values, table, lengths,
            q.stride(0), k.stride(0), v.stride(0), table.stride(0),
            HEADS=heads if turn else 0, KV_HEADS=kv_heads, SIZE=size, PLACES=triton.next_power_of_2(size // 2), PAGE=page,
            TURN=turn is not None, num_warps=1,
        )  # fmt: skip
    return turned.view(rows, heads, size)


@triton.jit
def _attend(
    q, keys, values, table, lengths, out, parts, sums, arrived,
    scale, q_row, table_row, splits,
    GROUP: tl.constexpr, HEADS: tl.constexpr, KV_HEADS: tl.constexpr, SIZE: tl.constexpr, PLACES: tl.constexpr,
    QUERIES: tl.constexpr, PAGE: tl.constexpr, SPLIT: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """The queries that share one key head of one row, and SPLIT of its tokens."""
    kv, split, row = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    length = tl.load(lengths + row)
    used = tl.cdiv(length, SPLIT)
    if split < used:
        query, place, token = tl.arange(0, QUERIES), tl.arange(0, PLACES), tl.arange(0, TILE)
        mine = (query < GROUP)[:, None] & (place < SIZE)[None, :]
        head = kv * GROUP + query
        asked = tl.load(q + row * q_row + head[:, None] * SIZE + place[None, :], mask=mine, other=0.0)
        highest = tl.full((QUERIES,), float("-inf"), tl.float32)
        total = tl.zeros((QUERIES,), tl.float32)
        mixed = tl.zeros((QUERIES, PLACES), tl.float32)
        for start in range(split * SPLIT, tl.minimum((split + 1) * SPLIT, length), TILE):
            at = start + token
            there = at < length
            page = tl.load(table + row * table_row + at // PAGE, mask=there, other=0).to(tl.int64)
            slot = ((page * PAGE + at % PAGE) * KV_HEADS + kv) * SIZE
            where = slot[:, None] + place[None, :]
            known = there[:, None] & (place < SIZE)[None, :]
            key = tl.load(keys + where, mask=known, other=0.0)
            value = tl.load(values + where, mask=known, other=0.0)
            score = tl.dot(asked, tl.trans(key), input_precision="ieee") * scale
            score = tl.where(there[None, :], score, float("-inf"))
            higher = tl.maximum(highest, tl.max(score, axis=1))
            share = tl.exp(score - higher[:, None])
            shrunk = tl.exp(highest - higher)
            total = total * shrunk + tl.sum(share, axis=1)
            mixed = mixed * shrunk[:, None]
            mixed = tl.dot(share.to(value.dtype), value, mixed, input_precision="ieee")
            highest = higher
        goal = out + (row * HEADS + head[:, None]) * SIZE + place[None, :]
        if used == 1:
            tl.store(goal, mixed / total[:, None], mask=mine)
        else:
            group = row * KV_HEADS + kv
            part = parts + ((group * splits + split) * QUERIES + query[:, None]) * PLACES + place[None, :]
            tl.store(part, mixed)
            note = sums + ((group * splits + split) * 2) * QUERIES + query
            tl.store(note, highest)
            tl.store(note + QUERIES, total)
            if is_last(arrived + group, used):
                highest = tl.full((QUERIES,), float("-inf"), tl.float32)
                total = tl.zeros((QUERIES,), tl.float32)
                mixed = tl.zeros((QUERIES, PLACES), tl.float32)
                for other in range(used):
                    note = sums + ((group * splits + other) * 2) * QUERIES + query
                    its_highest = tl.load(note, cache_modifier=".cg")
                    its_total = tl.load(note + QUERIES, cache_modifier=".cg")
                    part = parts + ((group * splits + other) * QUERIES + query[:, None]) * PLACES + place[None, :]
                    its_mixed = tl.load(part, cache_modifier=".cg")
                    higher = tl.maximum(highest, its_highest)
                    old, new = tl.exp(highest - higher), tl.exp(its_highest - higher)
                    total = total * old + its_total * new
                    mixed = mixed * old[:, None] + its_mixed * new[:, None]
                    highest = higher
                tl.store(goal, mixed / total[:, None], mask=mine)


def attend(
    q: Tensor, keys: Tensor, values: Tensor, table: Tensor, lengths: Tensor, scale: float, most: int, counters: Counters
) -> Tensor:  # fmt: skip
    """See :func:`adapterkit.kernels.decoding.attend`."""
    (rows, heads, size), (_, page, kv_heads, _) = q.shape, keys.shape
    queries, places = (max(FEWEST, triton.next_power_of_2(one)) for one in (heads // kv_heads, size))
    splits, tile = -(-most // SPLIT), min(128, max(FEWEST, 2**15 // (places * q.element_size())))
    out = q.new_empty(rows, heads * size)
    parts = torch.empty(rows * kv_heads * splits * queries * places, dtype=torch.float32, device=q.device)
    sums = torch.empty(rows * kv_heads * splits * queries * 2, dtype=torch.float32, device=q.device)
    arrived = counters.at_least(rows * kv_heads)
    with torch.cuda.device_of(q):
        _attend[(kv_heads, splits, rows)](
            q, keys, values, table, lengths, out, parts, sums, arrived,
            scale, q.stride(0), table.stride(0), splits,
            GROUP=heads // kv_heads, HEADS=heads, KV_HEADS=kv_heads, SIZE=size, PLACES=places, QUERIES=queries,
            PAGE=page, SPLIT=SPLIT, TILE=tile, num_warps=4, num_stages=2,
        )  # fmt: skip
    return out
