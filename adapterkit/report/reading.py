"""Reads a run's folder: what is there, as far as the run got, or an error that names the file and the line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from adapterkit.errors import RunError

from .fields import RUN, RunFile, check_run

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

__all__ = ["AUDIT", "RunFolder", "explain_no_run", "read_run"]

LOG, EVALUATION, AUDIT, UNUSABLE = "log.jsonl", "evaluation.json", "audit.json", "unusable.jsonl"
MANIFEST = Path("adapter") / "adapterkit.json"
DEEPEST = 64
"""Nothing that a run writes nests deeper."""


@attrs.frozen(kw_only=True)
class RunFolder:
    """What a run left behind.

    Attributes:
        path: The folder, as it was named.
        run: ``run.json``.
        log: The records of ``log.jsonl`` in order.
        log_is_cut: Whether the log ends in the middle of a line, as it does when the process was killed.
        evaluation: ``evaluation.json``, or None.
        audit: ``audit.json``, or None.
        unusable: The rows that were left out, each with its ``reason``.
        manifest: The adapter's ``adapterkit.json``, or None while there is no adapter.
    """

    path: Path
    run: RunFile
    log: Sequence[Mapping[str, Any]] = ()
    log_is_cut: bool = False
    evaluation: Mapping[str, Any] | None = None
    audit: Mapping[str, Any] | None = None
    unusable: Sequence[Mapping[str, Any]] = ()
    manifest: Mapping[str, Any] | None = None

    @property
    def name(self) -> str:
        """The folder's own name, by which people call the run."""
        return self.path.name or self.path.resolve().name


def read_run(folder: str | os.PathLike[str]) -> RunFolder:
    """Everything that a run left in its folder.

    Raises:
        RunError: The folder is no run's, or a file in it cannot be read; a log whose last line is cut is no error.
    """
    path = Path(folder)
    problem = explain_no_run(path)
    if problem:
        raise RunError(problem)
    run = check_run(_object(path / RUN) or {}, str(path / RUN))
    log, log_is_cut = _lines(path / LOG)
    unusable, _ = _lines(path / UNUSABLE)
    for number, record in enumerate(log, 1):
        step = record.get("step")
        if not isinstance(step, int) or isinstance(step, bool) or step < 0:
            raise RunError(f"{path / LOG}, record {number}: step must be a whole number from 0, not {step!r:.80}")
    return RunFolder(
        path=path,
        run=run,
        log=log,
        log_is_cut=log_is_cut,
        evaluation=_object(path / EVALUATION),
        audit=_object(path / AUDIT),
        unusable=unusable,
        manifest=_object(path / MANIFEST),
    )


def explain_no_run(folder: Path) -> str:
    """Why a folder is no run's, and which one may be meant; empty when it is one."""
    if (folder / RUN).is_file():
        return ""
    what = f"{str(folder)!r} is not the folder of a run"
    if not folder.exists():
        return f"{what}: there is no such folder"
    if not folder.is_dir():
        return f"{what}: it is a file{_instead(folder.parent)}"
    return f"{what}: there is no {RUN} in it{_instead(folder.parent) or _below(folder)}"


def _instead(folder: Path) -> str:
    return f"; did you mean {str(folder)!r}?" if (folder / RUN).is_file() else ""


def _below(folder: Path) -> str:
    runs = sorted(path.parent for path in folder.glob(f"*/{RUN}"))
    if not runs:
        return "; train(..., output=...) makes one"
    shown = ", ".join(repr(str(run)) for run in runs[:5])
    return f"; did you mean {shown}{f' or {len(runs) - 5} more' if len(runs) > 5 else ''}?"


def _object(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    value = _parse(_bytes(path), str(path))
    if not isinstance(value, dict):
        raise RunError(f"{path} must hold a JSON object, not {type(value).__name__}")
    return value


def _lines(path: Path) -> tuple[list[dict[str, Any]], bool]:
    """The objects of a JSONL file, and whether its last line is cut.

    A line is written with its end in one go, so only a last line without one can be half of a record.
    """
    if not path.is_file():
        return [], False
    *whole, rest = _bytes(path).split(b"\n")
    records = []
    for number, line in enumerate(whole, 1):
        if line.strip():
            record = _parse(line, f"{path}, line {number}")
            if not isinstance(record, dict):
                raise RunError(f"{path}, line {number}: a JSON object belongs here, not {type(record).__name__}")
            records.append(record)
    try:
        last = _parse(rest, str(path)) if rest.strip() else None
    except RunError:
        return records, True
    if isinstance(last, dict):
        return [*records, last], False
    return records, last is not None


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from None


def _parse(data: bytes, where: str) -> Any:
    """A JSON value; NaN and Infinity are taken, as a run that diverged logs them."""
    try:
        value = json.loads(data)
    except RecursionError:
        raise RunError(f"{where}: nested deeper than {DEEPEST} levels") from None
    except ValueError as error:  # not JSON, or not UTF-8
        raise RunError(f"{where}: not valid JSON: {error}") from None
    if data.count(b"[") + data.count(b"{") > DEEPEST and _too_deep(value):
        raise RunError(f"{where}: nested deeper than {DEEPEST} levels")
    return value


def _too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(DEEPEST):
        level = [
            child
            for one in level
            if isinstance(one, (dict, list))
            for child in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return False
    return True
