"""One audit, from a source of rows to what was found in it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from adapterkit.config import build_config, to_dict
from adapterkit.errors import ConfigError
from adapterkit.registry import default_registry

from .canaries import Canary, read_canaries
from .checks import Part, memory_checks, text_checks, token_checks, unusable, without_base
from .findings import Audit
from .items import Items, load, source_name
from .options import AuditOptions
from .private import make_guard
from .quoting import Quoting

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from adapterkit.base import Base
    from adapterkit.compose import Acting
    from adapterkit.data.reports import Unusable
    from adapterkit.registry import Registry

__all__ = ["audit"]

ORDER = ("serious", "warning", "info")


def audit(
    base: Base | None,
    data: Any,
    *,
    eval_data: Any = None,
    adapter: Acting | str | os.PathLike[str] | None = None,
    canaries: Sequence[Canary] | str | os.PathLike[str] | None = None,
    columns: Mapping[str, str] | None = None,
    format: str | None = None,  # noqa: A002 - the word that users know
    registry: Registry | None = None,
    **options: Any,
) -> Audit:
    """Look through training data for what makes adapters bad, and into an adapter for what it has memorised.

    Args:
        base: Counts tokens, and is what ``adapter`` belongs to; without one, everything that needs a tokenizer is left out, and
            the audit says so.
        data: What :meth:`adapterkit.Base.train` takes.
        eval_data: Held-out rows: is any of them a training row, and do they expect labels that training never shows?
        adapter: One that was trained on ``data``, or its folder.
        canaries: What :func:`plant_canaries` planted in ``data``, or the file that it was written to.
        columns: As in training.
        format: As in training.
        registry: The plugins to use; by default the base's.
        **options: See :class:`AuditOptions`.

    Raises:
        ConfigError: Options that do not exist or do not fit, or an adapter without a base.
        DataError: The data cannot be read, or no format fits. A row that cannot be used is a finding.
    """
    started = time.perf_counter()
    chosen = build_config(AuditOptions, options, what="options of audit")
    if base is None and (adapter is not None or canaries is not None):
        raise ConfigError("options of audit do not fit", ["adapter: needs the base that it was trained on"])
    if canaries is not None and adapter is None:
        raise ConfigError("options of audit do not fit", ["canaries: need the adapter that was trained on them"])
    planted = _canaries(canaries)
    known = registry or (base.registry if base is not None else default_registry())
    loaded = base.load(adapter) if base is not None and adapter is not None else None
    items = _without(planted, load(data, known, columns, format))
    held_out = load(eval_data, known, columns, format) if eval_data is not None else None
    guard, missing = make_guard(chosen)
    quoting = Quoting(chosen.examples, guard.black_out)
    parts = [Part(findings=missing), text_checks(items, held_out, chosen, guard, quoting)]
    refused: list[Unusable] = []
    if base is not None:
        tokens, refused = token_checks(base, items, chosen, quoting)
        parts.append(tokens)
    else:
        parts.append(Part(findings=[without_base()]))
    parts.append(Part(findings=unusable(items, refused, quoting), made=["rows that do not have the format"]))
    if base is not None and loaded is not None:
        parts.append(memory_checks(base, loaded, items, held_out, planted, chosen, quoting))
    findings = [finding for part in parts for finding in part.findings]
    return Audit(
        source=source_name(data),
        rows=len(items),
        eval_source=None if held_out is None else source_name(eval_data),
        eval_rows=None if held_out is None else len(held_out),
        base=None if base is None else base.source.name,
        adapter=None if loaded is None else loaded.digest,
        options=to_dict(chosen),
        findings=tuple(sorted(findings, key=lambda finding: ORDER.index(finding.severity))),
        made=tuple(check for part in parts for check in part.made),
        labels=next((part.labels for part in parts if part.labels), ()),
        lengths=next((part.lengths for part in reversed(parts) if part.lengths), ()),
        memorisation=next((part.memorisation for part in parts if part.memorisation), None),
        seconds=round(time.perf_counter() - started, 3),
    )


def _without(canaries: Sequence[Canary], items: Items) -> Items:
    """The rows that are the user's own: planted ones would be found to repeat each other."""
    planted = {canary.record() for canary in canaries}
    return Items([item for item in items.usable if item.record not in planted], items.unusable)


def _canaries(given: Sequence[Canary] | str | os.PathLike[str] | None) -> Sequence[Canary]:
    if given is None:
        return ()
    if isinstance(given, Sequence) and not isinstance(given, str):
        if not all(isinstance(one, Canary) for one in given):
            raise ConfigError(
                "options of audit do not fit", ["canaries: must be what plant_canaries gave, or its file"]
            )
        return given
    return read_canaries(given)
