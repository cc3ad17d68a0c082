"""``adapterkit audit``: its options are those of the audit."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from adapterkit.audit import AuditOptions, plant_canaries, write_canaries
from adapterkit.audit import audit as look_through
from adapterkit.audit.findings import several
from adapterkit.errors import ConfigError, DataError

from .options import check_file, given, with_options
from .plugins import PluginFiles, registry_with

__all__ = ["audit"]


def _audit(
    data: Annotated[str, Parameter(help="A CSV, TSV, JSON, JSONL or Parquet file.")],
    *,
    base: Annotated[
        str | None,
        Parameter(help="The base that you train: a folder or a Hub id; without one, nothing is counted in tokens."),
    ] = None,
    eval_data: Annotated[str | None, Parameter(help="Held-out rows: is any of them a training row?")] = None,
    adapter: Annotated[
        str | None,
        Parameter(help="What was trained on DATA, an adapter or several: how much does it repeat?"),
    ] = None,
    canaries: Annotated[
        Path | None, Parameter(help="The canaries that --plant put into DATA, to be asked of --adapter.")
    ] = None,
    plant: Annotated[
        Path | None,
        Parameter(
            help="Write DATA with random secrets in it to this .jsonl file, and the secrets beside it; nothing is audited."
        ),
    ] = None,
    secrets: Annotated[int, Parameter(help="How many secrets --plant puts in.")] = 8,
    repeats: Annotated[int, Parameter(help="How many rows have each of them.")] = 1,
    html: Annotated[Path | None, Parameter(help="Write a page that stands alone to this file.")] = None,
    strict: Annotated[bool, Parameter(help="Exit with 1 where something serious is found.", negative="")] = False,
    columns: Annotated[dict[str, str] | None, Parameter(help="Which column is what: --columns.prompt text.")] = None,
    format: Annotated[str | None, Parameter(help="The data's format, when the first row would not tell.")] = None,  # noqa: A002
    revision: Annotated[str | None, Parameter(help="The base's Hub commit, tag or branch.")] = None,
    dtype: Annotated[str, Parameter(help="The base's dtype: auto, float32, bfloat16, float16.")] = "auto",
    device: Annotated[str, Parameter(help="Where the base is.")] = "auto",
    quantize: Annotated[str | None, Parameter(help="Load the base in nf4, fp4 or int8.")] = None,
    as_json: Annotated[bool, Parameter(name="--json", help="Print JSON.", negative="")] = False,
    plugin: PluginFiles = (),
    **options: Any,
) -> None:
    """Look through training data, and for what an adapter has memorised of it.

    Duplicates, contradictions, rows that are also in --eval-data, what is empty or cut, labels,
    lengths, and what seems to be personal data or a secret. The exit code is 0 whatever is found,
    but with --strict.
    """
    check_file("DATA", data)
    for name, path in (("--eval-data", eval_data), ("--canaries", canaries)):
        if path is not None:
            check_file(name, str(path))
    if html is not None and not html.parent.is_dir():
        raise ConfigError("--html does not fit", [f"{str(html)!r}: there is no folder {str(html.parent)!r}"])
    chosen = given(options, AuditOptions)
    shared: dict[str, Any] = {"columns": columns, "format": format, "registry": registry_with(plugin)}
    if plant is not None:
        _plant(
            data,
            plant,
            count=secrets,
            repeats=repeats,
            **shared,
            **({"seed": chosen["seed"]} if "seed" in chosen else {}),
        )
        return
    source = {"revision": revision, "dtype": dtype, "device": device, "quantize": quantize}
    opened = _base(base, shared["registry"], source)
    found = look_through(
        opened,
        data,
        eval_data=eval_data,
        adapter=adapter if opened is None else _acting(opened, adapter),
        canaries=canaries,
        **shared,
        **chosen,
    )
    if html is not None:
        html.write_text(found.html(), encoding="utf-8")
        print(f"page written to {html}", file=sys.stderr)
    if as_json:
        print(json.dumps(found.to_json(), indent=2, ensure_ascii=False))
    else:
        from adapterkit.audit.terminal import show

        show(found)
    if strict and found.serious:
        names = ", ".join(finding.name for finding in found.serious)
        raise DataError(f"{several(len(found.serious), 'serious finding')}: {names}")


def _base(name: str | None, registry: Any, source: dict[str, Any]) -> Any:
    if name is None:
        return None
    from adapterkit.base import Base  # with torch, which an audit of texts does not need

    return Base(name, registry=registry, **source)


def _acting(base: Any, text: str | None) -> Any:
    from .acting import open_acting  # with torch as well

    return open_acting(base, text)


def _plant(data: str, target: Path, **options: Any) -> None:
    if target.suffix != ".jsonl":
        raise ConfigError(
            "--plant does not fit", [f"{str(target)!r}: rows are written as JSON Lines; name the file .jsonl"]
        )
    if target.resolve() == Path(data).resolve():
        raise ConfigError("--plant does not fit", [f"{str(target)!r} is DATA; name another file"])
    rows, canaries = plant_canaries(data, **options)
    secrets = target.with_suffix(".canaries.json")
    target.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    write_canaries(canaries, secrets)
    print(f"{len(canaries)} secrets in {sum(one.repeats for one in canaries)} of {len(rows):,} rows", file=sys.stderr)
    print(target)
    print(secrets)


audit = with_options(_audit, AuditOptions)
