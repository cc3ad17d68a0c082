"""How many tokens there are to train on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapterkit.data.dataset import encode_rows
from adapterkit.data.rendering import Renderer
from adapterkit.errors import BaseLoadError, ConfigError

from .plan import Rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from adapterkit.registry import Registry

    from .skeleton import BaseShape

__all__ = ["rows_of"]


def rows_of(
    base: Any,
    shape: BaseShape,
    data: Any,
    rows: int | None,
    max_length: int,
    registry: Registry,
    *,
    columns: Mapping[str, str] | None,
    format: str | None,  # noqa: A002 - the word that users know
) -> Rows | None:
    """The rows of ``data``, counted, or ``rows`` of the longest kind; None where neither is given.

    Raises:
        ConfigError: Both are given, or less than one row.
        DataError: The data cannot be read.
    """
    if data is None:
        if rows is None:
            return None
        if rows < 1:
            raise ConfigError("plan does not fit", [f"rows: must be at least 1, not {rows!r}"])
        return Rows(rows=rows, tokens=rows * max_length, trained=rows * (max_length - 1), longest=max_length)
    if rows is not None:
        raise ConfigError("plan does not fit", ["rows: the data says how many there are; give one of the two"])
    encoded = encode_rows(data, Renderer(_tokenizer(base, shape), max_length), registry, columns=columns, format=format)
    lengths = [len(one.input_ids) for one in encoded.examples]
    return Rows(
        rows=len(lengths),
        tokens=sum(lengths),
        trained=sum(int(one.trained) for one in encoded.examples),
        longest=max([2, *lengths]),
        counted=True,
    )


def _tokenizer(base: Any, shape: BaseShape) -> Any:
    """The base's, without its weights."""
    from transformers import AutoTokenizer

    source = getattr(base, "source", None)
    if source is not None and (source.tokenizer is not None or source.is_object):
        return base.tokenizer
    if hasattr(base, "named_modules"):
        raise ConfigError(
            "plan does not fit", ["data: a model object has no tokenizer; plan for Base(model, tokenizer=...)"]
        )
    try:
        return AutoTokenizer.from_pretrained(
            shape.name, revision=(source and source.revision) or "main", trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise BaseLoadError(f"{shape.name!r} has no tokenizer: {str(error).splitlines()[0]}") from error
