"""What a LoRA adapter does, without a base: its tensors as effects, and effects as its tensors."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

import attrs
import torch
from torch import nn

from adapterkit import LowRank, Rows, Site, pattern_value, targeted

from .config import MOST_ALPHA, MOST_RANK, LoraConfig
from .layer import scale_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from adapterkit import Effect, Effects

__all__ = ["effects_of", "expressed"]

DOWN, UP = ".lora_A.weight", ".lora_B.weight"
DOWN_OF_TABLE, UP_OF_TABLE = ".lora_embedding_A", ".lora_embedding_B"
UPS = {DOWN: UP, DOWN_OF_TABLE: UP_OF_TABLE}
DOWNS = {up: down for down, up in UPS.items()}
TOKENS = ".token_adapter.trainable_tokens_delta"


def effects_of(config: LoraConfig, tensors: Mapping[str, Tensor]) -> dict[str, tuple[Effect, ...]] | None:
    """What the tensors do at each site; None where that depends on the base's own weights.

    So it is with the magnitudes of DoRA, with trained copies of biases and layers, and with updates of other parameters, whose
    layout the module alone knows.

    Raises:
        ValueError: The tensors are not those of this configuration.
    """
    if config.use_dora or config.bias or config.modules_to_save or config.target_parameters or config.is_shifted:
        return None
    found: dict[str, tuple[Effect, ...]] = {}
    for name, tensor in tensors.items():
        site, end = _split(name)
        if end in DOWNS:
            if site + DOWNS[end] not in tensors:
                raise ValueError(f"{site + DOWNS[end]!r:.200} is missing")
            continue
        if site in found:
            raise ValueError(f"{site!r:.200} is trained in two ways")
        found[site] = (_rows(config, site, tensor) if end == TOKENS else _update(config, site, end, tensors),)
    _check_targets(config, found)
    return found


def _split(name: str) -> tuple[str, str]:
    """The site of a tensor, and the rest of its name."""
    for end in (*UPS, *DOWNS, TOKENS):
        if name.endswith(end):
            return name.removesuffix(end), end
    raise ValueError(f"{name!r:.200} is no tensor of LoRA")


def _update(config: LoraConfig, site: str, end: str, tensors: Mapping[str, Tensor]) -> LowRank:
    if site + UPS[end] not in tensors:
        raise ValueError(f"{site + UPS[end]!r:.200} is missing")
    (rank, scale), down, up = scale_of(site, config), tensors[site + end], tensors[site + UPS[end]]
    if not (down.dim() == up.dim() == 2 and len(down) == up.shape[1] == rank):
        raise ValueError(
            f"the factors at {site!r:.200} are {(*down.shape,)} and {(*up.shape,)}, and not of rank {rank}"
        )
    return LowRank(down, up, scale, embedding=end == DOWN_OF_TABLE)


def _rows(config: LoraConfig, site: str, tensor: Tensor) -> Rows:
    index = _tokens_at(site, config)
    if tensor.dim() != 2 or len(tensor) != len(index):
        raise ValueError(f"the rows at {site!r:.200} are {tuple(tensor.shape)}, for {len(index)} tokens")
    return Rows(torch.tensor(index), tensor)


def _check_targets(config: LoraConfig, effects: Effects) -> None:
    """Refuse an update that is at none of the targets: on a base it would be one too many."""
    updates = {site: one for site, (one,) in effects.items() if isinstance(one, LowRank)}
    sites = [
        Site(name, "embedding" if one.embedding else "linear", one.down.shape[1], len(one.up), module=nn.Module())
        for name, one in updates.items()
    ]
    left = set(updates) - ({site.name for site in targeted(config, sites, strict=False)} if sites else set())
    if left:
        raise ValueError(f"{min(left)!r:.200} is none of its target modules")


def _tokens_at(site: str, config: LoraConfig) -> Sequence[int]:
    wanted = config.trainable_token_indices or ()
    if not isinstance(wanted, dict):
        return wanted
    return next((index for name, index in reversed(wanted.items()) if site.endswith(name)), ())


def expressed(effects: Effects, kind: type[LoraConfig]) -> tuple[LoraConfig, dict[str, Tensor]] | None:
    """An adapter that does exactly this; None where there is more to do than low-rank updates and other rows for tokens.

    Args:
        effects: By site; several updates at one site become one of the sum of their ranks.
        kind: LoRA's configuration, or one that inherits from it.
    """
    updates: dict[str, LowRank] = {}
    rows: dict[str, Rows] = {}
    for site, here in effects.items():
        low = [one for one in here if isinstance(one, LowRank)]
        if low and len(low) == len(here):
            updates[site] = low[0] if len(low) == 1 else LowRank.stacked(low)
        elif len(here) == 1 and isinstance(here[0], Rows):
            rows[site] = here[0]
        elif here:
            return None
    if not updates or not all(1 <= one.rank <= MOST_RANK for one in updates.values()):
        return None
    config, updates = _with_scales(updates, kind)
    tensors = {name: tensor for site, one in updates.items() for name, tensor in _named(site, one).items()}
    tensors |= {site + TOKENS: one.rows for site, one in rows.items()}
    indices = {site: tuple(one.index.tolist()) for site, one in rows.items()}
    return attrs.evolve(config, trainable_token_indices=indices or None), tensors


def _folded(update: LowRank) -> LowRank:
    """The same with the scale in B, in float32 at least."""
    wide = update.up.to(torch.promote_types(update.up.dtype, torch.float32))
    return attrs.evolve(update, up=wide * update.scale, scale=1.0)


def _with_scales(updates: Mapping[str, LowRank], kind: type[LoraConfig]) -> tuple[LoraConfig, dict[str, LowRank]]:
    """A configuration that says these ranks and scales, and the updates; scales that differ are folded into B."""
    ranks, scales = {site: one.rank for site, one in updates.items()}, {one.scale for one in updates.values()}
    scale = scales.pop() if len(scales) == 1 else 1.0
    if not 0.0 < scale * max(ranks.values()) <= MOST_ALPHA:
        scale = 1.0
    counts = Counter(ranks.values())
    rank = max(counts, key=lambda one: (counts[one], one))
    patterns = _patterns(ranks, rank)
    config = kind(
        rank=rank,
        alpha=scale * rank,
        rank_pattern=patterns,
        alpha_pattern={name: scale * one for name, one in patterns.items()},
        target_modules=tuple(sorted(updates)),
    )
    return config, {site: one if one.scale == scale else _folded(one) for site, one in updates.items()}


def _patterns(ranks: Mapping[str, int], usual: int) -> dict[str, int]:
    """Names of the sites whose rank is not the usual one; last names, where all sites of such a name have the same rank.

    Patterns choose among targets alone, so that it is of no matter what else a base calls so.
    """
    by_last: dict[str, set[int]] = {}
    for site, rank in ranks.items():
        by_last.setdefault(_last(site), set()).add(rank)
    short = {
        (_last(site) if len(by_last[_last(site)]) == 1 else site): rank for site, rank in ranks.items() if rank != usual
    }
    if all(pattern_value(short, site, usual) == rank for site, rank in ranks.items()):
        return short
    return {f"^{re.escape(site)}": rank for site, rank in ranks.items() if rank != usual}


def _last(site: str) -> str:
    return site.rpartition(".")[2]


def _named(site: str, update: LowRank) -> dict[str, Tensor]:
    down, up = (DOWN_OF_TABLE, UP_OF_TABLE) if update.embedding else (DOWN, UP)
    return {site + down: update.down, site + up: update.up}
