"""``adapterkit train-many``: several adapters in one pass over one base."""

from __future__ import annotations

import json
import sys
from pathlib import Path  # noqa: TC003 - read when the command is made
from typing import Annotated, Any

from cyclopts import Parameter

from adapterkit.base import Base
from adapterkit.errors import ConfigError
from adapterkit.train.jobs import Job
from adapterkit.yaml_file import read_documents

from .plugins import PluginFiles, registry_with

__all__ = ["train_many"]

PATHS = ("data", "eval_data", "replay", "general_data")
"""What names files, from the folder of the list on."""


def train_many(
    base: Annotated[str, Parameter(help="A folder with a model, or a Hub id.")],
    jobs: Annotated[
        Path,
        Parameter(
            help="YAML or JSON: a list of jobs, each with data, and method, name and options as train takes them."
        ),
    ],
    *,
    output: Annotated[Path, Parameter(help="A folder for the runs, each in a folder of its job's name.")],
    resume: Annotated[bool, Parameter(help="Go on where the runs in OUTPUT were cut off.", negative="")] = False,
    revision: Annotated[str | None, Parameter(help="The base's Hub commit, tag or branch.")] = None,
    dtype: Annotated[str, Parameter(help="The base's dtype: auto, float32, bfloat16, float16.")] = "auto",
    device: Annotated[str, Parameter(help="Where the base is.")] = "auto",
    quantize: Annotated[str | None, Parameter(help="Load the base in nf4, fp4 or int8.")] = None,
    as_json: Annotated[bool, Parameter(name="--json", help="Print JSON.", negative="")] = False,
    plugin: PluginFiles = (),
) -> None:
    """Train several adapters in one pass over one base; each becomes what it would have become by itself."""
    asked = _read(jobs)
    if resume:
        asked = [Job(one.data, method=one.method, name=one.name, **{**one.options, "resume": True}) for one in asked]
    registry = registry_with(plugin)
    shared = Base(base, revision=revision, dtype=dtype, device=device, quantize=quantize, registry=registry)
    adapters = shared.train_many(asked, output=output)
    folders = [output / (job.name or str(number)) / "adapter" for number, job in enumerate(asked)]
    if as_json:
        pairs = zip(folders, adapters, strict=True)
        print(
            json.dumps(
                [{"adapter": str(folder), "digest": one.digest, **one.manifest.training} for folder, one in pairs],
                indent=2,
            )
        )
        return
    for folder, adapter in zip(folders, adapters, strict=True):
        print(f"{adapter.parameters:,} parameters trained; digest {adapter.digest}", file=sys.stderr)
        print(folder)


def _read(path: Path) -> list[Job]:
    """The jobs of a file.

    Raises:
        ConfigError: There is no such file, or it is no list of jobs; all problems together.
    """
    documents = read_documents(path, "JOBS")
    listed = documents[0] if len(documents) == 1 else documents
    if not isinstance(listed, list) or not listed:
        raise ConfigError("JOBS does not fit", [f"{path}: must be a list of jobs, such as `- data: cards.csv`"])
    problems = [
        f"{path}, job {number}: must have `data`, and be a mapping of options"
        for number, one in enumerate(listed, 1)
        if not isinstance(one, dict) or "data" not in one or not all(isinstance(name, str) for name in one)
    ]
    if problems:
        raise ConfigError("JOBS does not fit", problems)
    return [_job(one, path.parent) for one in listed]


def _job(values: dict[str, Any], folder: Path) -> Job:
    given = {name: _from(folder, value) if name in PATHS else value for name, value in values.items()}
    return Job(given.pop("data"), method=given.pop("method", "lora"), name=str(given.pop("name", "")), **given)


def _from(folder: Path, value: Any) -> Any:
    """Paths as the list means them: from its own folder on."""
    if isinstance(value, str):
        return str(folder / value)
    if isinstance(value, list):
        return [_from(folder, one) for one in value]
    return {str(folder / str(name)): weight for name, weight in value.items()} if isinstance(value, dict) else value
