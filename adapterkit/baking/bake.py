"""Writes a model of its own: a base with adapters in its weights, which needs adapterkit no more."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from adapterkit.adapter import Adapter
from adapterkit.artifact.card import render_model
from adapterkit.artifact.fit import check_base
from adapterkit.artifact.manifest import BaseReference
from adapterkit.artifact.replacing import check_apart
from adapterkit.checkpoint import Checkpoint
from adapterkit.compose import Blend
from adapterkit.errors import BaseLoadError, ConfigError, SelectionError
from adapterkit.fingerprint import fingerprint
from adapterkit.loading import DTYPES, Source, load_base
from adapterkit.sites import find_sites
from adapterkit.sizes import parse_size

from .casting import dtype_name
from .files import CARD, fetch, licence_of, rest_of, write_rest
from .layout import Layout, NotPlainError, main_dtype
from .loaded import Loaded
from .progress import progress
from .report import REPORT, Baked, Measure, parts_of
from .staging import check_target, staged
from .streaming import Streaming

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from adapterkit.base import Base
    from adapterkit.compose import Acting

__all__ = ["bake"]

logger = logging.getLogger("adapterkit")


@attrs.frozen
class _Files:
    """A base on disk.

    Attributes:
        folder: Where its files are.
        commit: Its Hub commit.
        dtype: What its weights are to be cast to; None leaves each as it is.
        rest: What else there is: see :func:`rest_of`.
        licence: What its card says of it.
    """

    folder: Path
    commit: str
    dtype: torch.dtype | None
    rest: Mapping[str, bytes | Path]
    licence: Mapping[str, str]

    @classmethod
    def of(cls, source: Source) -> _Files:
        """Of a base that is a folder or a Hub id."""
        if source.dtype not in ("auto", *DTYPES):
            raise BaseLoadError(f"dtype {source.dtype!r} is not one of auto, {', '.join(DTYPES)}")
        folder, commit = fetch(source)
        dtype = DTYPES.get(source.dtype)
        rest = rest_of(folder, None if dtype is None else dtype_name(dtype))
        return cls(folder, commit, dtype, rest, licence_of(folder))


def bake(
    base: Base,
    adapter: Acting,
    folder: str | os.PathLike[str],
    *,
    max_shard_size: int | str = "5GB",
    min_survived: float = 0.5,
) -> Baked:
    """See :meth:`adapterkit.Base.bake`."""
    if not isinstance(adapter, (Adapter, Blend)):
        raise SelectionError(
            f"what is baked is an Adapter, a Stack or a Blend, not {adapter!r}; Base.load(folder) gives one"
        )
    target = Path(folder)
    check_apart(target, () if base.source.is_object else (base.source.location,))
    check_target(target)
    most = parse_size(max_shard_size, "max_shard_size")
    if not isinstance(min_survived, (int, float)) or not 0.0 <= min_survived <= 1.0:
        raise ConfigError("options of bake do not fit", [f"min_survived: must be from 0 to 1, not {min_survived!r}"])
    files = None if base.source.is_object else _Files.of(base.source)
    work = _of_object(base, adapter) if files is None else _of_files(base, adapter, files)
    with staged(target, work.size) as staging, progress(work.size) as tell:
        measures = work.write(staging, most, tell)
        made = Baked(
            folder=Path(os.path.realpath(target)),
            layers=tuple(one.layer(name) for name, one in measures.items()),
            survived=Measure.of(measures.values()).survived,
            dtype=work.dtype,
            base=work.base,
            parts=parts_of(adapter),
            whole=work.whole,
        )
        _check_survived(made, min_survived)
        _write_rest(base, made, files, staging)
    return made


def _of_object(base: Base, adapter: Acting) -> Loaded:
    """Onto a model that the caller has loaded.

    Raises:
        SelectionError: It is quantized.
    """
    if any(site.is_quantized for site in base.sites):
        raise SelectionError(
            "this model is quantized, which would round the adapter away: bake onto Base(folder) or Base('org/model'), the model "
            "that it was made of"
        )
    base.load(adapter)
    why = "the base is a model object"
    return Loaded(base.registry, base.model, base.sites, adapter, base=base.reference, dtype=None, whole=why)


def _of_files(base: Base, adapter: Acting, files: _Files) -> Streaming | Loaded:
    """Onto the weights on the disk: streamed where these are the model's own, else through the model."""
    checkpoint = Checkpoint.open(files.folder)
    name = base.source.name
    try:
        layout = Layout.of(checkpoint)
        return Streaming(base.registry, layout, adapter, name=name, commit=files.commit, dtype=files.dtype)
    except NotPlainError as error:
        why = str(error)
    logger.warning("%r is loaded whole to be baked: %s", name, why)
    stored = main_dtype(checkpoint)
    model = load_base(
        # what is copied of the tokenizer is its files
        Source(location=files.folder, dtype=stored, device="cpu", tokenizer=base.source.tokenizer or object())
    ).model
    reference = BaseReference(name=name, revision=files.commit, fingerprint=fingerprint(model))
    for one in adapter.adapters if isinstance(adapter, Blend) else (adapter,):
        check_base(one.manifest, reference.fingerprint)
    return Loaded(base.registry, model, find_sites(model), adapter, base=reference, dtype=files.dtype, whole=why)


def _check_survived(made: Baked, least: float) -> None:
    """Refuse what the cast has left too little of.

    Raises:
        SelectionError: Says how much, and what would keep more.
    """
    if made.survived >= least:
        return
    worst = min(made.layers, key=lambda one: one.survived)
    raise SelectionError(
        f"{made.survived:.1%} of the update survives the cast to {made.dtype}, and {least:.0%} are asked for (least at "
        f"{worst.name!r}: {worst.survived:.1%}): a base with dtype='float32' keeps it all; min_survived=0 writes it as it is"
    )


def _write_rest(base: Base, made: Baked, files: _Files | None, staging: Path) -> None:
    """Everything but the weights."""
    if files is not None:
        write_rest(files.rest, staging)
    tokenizer = base.source.tokenizer
    if tokenizer is not None:
        tokenizer.save_pretrained(staging)
    values = made.to_json()
    card = render_model(values, None if files is None else files.licence)
    (staging / CARD).write_text(card, encoding="utf-8")
    text = json.dumps(values, indent=2, ensure_ascii=False)
    (staging / REPORT).write_text(text + "\n", encoding="utf-8")
