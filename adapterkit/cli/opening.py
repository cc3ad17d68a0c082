"""What commands that open a base have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from adapterkit.base import Base

from .plugins import registry_with

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "AsJson",
    "BaseName",
    "Columns",
    "DataFile",
    "Device",
    "Dtype",
    "Format",
    "Quantize",
    "Revision",
    "open_base",
]

BaseName = Annotated[str, Parameter(help="A folder with a model, or a Hub id.")]
DataFile = Annotated[str, Parameter(help="A CSV, TSV, JSON, JSONL or Parquet file.")]
Columns = Annotated[dict[str, str] | None, Parameter(help="Which column is what: --columns.prompt text.")]
Format = Annotated[str | None, Parameter(help="The data's format, when the first row would not tell.")]
Revision = Annotated[str | None, Parameter(help="The base's Hub commit, tag or branch.")]
Dtype = Annotated[str, Parameter(help="The base's dtype: auto, float32, bfloat16, float16.")]
Device = Annotated[str, Parameter(help="Where the base is.")]
Quantize = Annotated[str | None, Parameter(help="Load the base in nf4, fp4 or int8.")]
AsJson = Annotated[bool, Parameter(name="--json", help="Print JSON.", negative="")]


def open_base(base: str, plugin: tuple[Path, ...], **options: Any) -> Base:
    """The base that a command asks for, with the plugin files that it names; it is loaded when it is first needed."""
    return Base(base, registry=registry_with(plugin), **options)
