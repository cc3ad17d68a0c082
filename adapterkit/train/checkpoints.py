"""A run's state on disk: what a run that was cut off goes on from, as if it had not been."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
import time
from typing import TYPE_CHECKING, Any

import attrs
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from adapterkit.artifact.replacing import sync
from adapterkit.errors import ConfigError, TrainingError
from adapterkit.resident import flatten, load_state

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from torch import Tensor

    from .training import Training

__all__ = ["Checkpoint", "Checkpoints"]

logger = logging.getLogger("adapterkit")

STATE, LAYERS, OPTIMIZER, KEPT = "state.json", "layers.safetensors", "optimizer.safetensors", "kept.safetensors"
PREFIX, UNFINISHED = "step-", ".unfinished-"
OURS = re.compile(rf"{PREFIX}\d{{8,}}")
"""What a checkpoint's folder is called; whatever else lies beside it is somebody else's."""
SCHEMA = 1


@attrs.frozen(eq=False)
class Checkpoint:
    """What one folder holds, found whole."""

    folder: Path
    state: Mapping[str, Any]
    layers: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    kept: dict[str, Tensor] | None

    @property
    def step(self) -> int:
        """The step after which it was written."""
        return int(self.state["step"])

    def restore(self, training: Training) -> None:
        """Bring a training that was just made to where this one was."""
        load_state(training.module.layers, self.layers)
        _load_optimizer(training.optimizer, self.optimizer)
        training.decay.load_state_dict({**training.decay.state_dict(), **self.state["decay"]})
        for group, rate in zip(training.optimizer.param_groups, self.state["rates"], strict=True):
            group["lr"] = rate
        training.random.load_state(_of_process(training.processes.rank, self.optimizer))
        training.watch.load_state(self.state["watch"], self.kept)
        training.step, training.tokens = self.step, self.state["tokens"]
        training.window, training.unreached = list(self.state["window"]), set(self.state["unreached"])
        training.began, training.aside = time.perf_counter() - self.state["seconds"], self.state["aside"]
        training.log.go_on_after(self.state["records"])


@attrs.frozen
class Checkpoints:
    """The checkpoints of one run.

    Attributes:
        folder: Where they are, one folder for each.
        identity: What the run is: a checkpoint of another run is refused.
        limit: How many are kept.
        writes: Whether this process is the one that writes.
    """

    folder: Path
    identity: Mapping[str, Any]
    limit: int
    writes: bool = True

    def save(self, training: Training) -> None:
        """Write one, all or nothing; a disk that is full is said, and the run goes on: the next one may find room."""
        random = training.processes.exchange(training.random.state())  # all come here at the same step
        if not self.writes:
            return
        target = self.folder / f"{PREFIX}{training.step:08d}"
        staging = self.folder / f"{UNFINISHED}{target.name}"
        try:
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir(parents=True)
            training.log.sync()
            _write(staging, training, self.identity, random)
            shutil.rmtree(target, ignore_errors=True)  # of an earlier life of this run, which went on from before it
            staging.rename(target)
            sync(self.folder)
        except (OSError, SafetensorError) as error:  # safetensors' own is no OSError, even for a disk that is full
            shutil.rmtree(staging, ignore_errors=True)
            logger.warning(
                "no checkpoint of step %d could be written into %s (%s); the run goes on, and earlier ones are as they were: %s",
                training.step,
                self.folder,
                getattr(error, "strerror", None) or error,
                ", ".join(path.name for path in self._found()) or "there is none",
            )
            return
        for path in self._found()[: -self.limit]:
            _remove(path)

    def last(self) -> Checkpoint | None:
        """The last one that was written; None where there is none.

        Raises:
            ConfigError: It is of another run: other options, data or base.
            TrainingError: It is damaged.
        """
        found = self._found()
        if not found:
            return None
        folder = found[-1]
        state = _read_state(folder)
        differences = _differences(state.get("identity", {}), self.identity)
        if differences:
            raise ConfigError(f"{str(folder)!r} is of another run: resume with what it was started with", differences)
        _check_whole(folder, state)
        kept = load_file(folder / KEPT) if KEPT in state["files"] else None
        return Checkpoint(folder, state, load_file(folder / LAYERS), load_file(folder / OPTIMIZER), kept)

    def last_of(self, *, resume: bool) -> Checkpoint | None:
        """The last one, for a run that is to be resumed; for another, there must be none.

        Raises:
            ConfigError: Checkpoints of a run that was cut off are there: whoever forgot ``resume=True`` would lose them.
        """
        if resume:
            return self.last()
        found = self._found()
        if found:
            problem = (
                f"output: a run was cut off there after step {int(found[-1].name.removeprefix(PREFIX))}; go on with it by "
                f"resume=True, give another folder, or remove {str(self.folder)!r} to begin anew"
            )
            raise ConfigError("options of train do not fit", [problem])
        return None

    def clear(self) -> None:
        """Remove all: the run has ended."""
        if self.writes and self.folder.is_dir():
            for path in (*self._found(), *self.folder.glob(f"{UNFINISHED}*")):
                _remove(path)
            if not any(self.folder.iterdir()):
                self.folder.rmdir()

    def _found(self) -> list[Path]:
        found = [path for path in self.folder.glob(f"{PREFIX}*") if OURS.fullmatch(path.name) and path.is_dir()]
        return sorted(found, key=lambda path: int(path.name.removeprefix(PREFIX)))


def _write(folder: Path, training: Training, identity: Mapping[str, Any], random: list[dict[str, Tensor]]) -> None:
    decay = {name: value for name, value in training.decay.state_dict().items() if _is_plain(value)}
    files = {
        LAYERS: flatten(training.module.layers),
        OPTIMIZER: {**_optimizer_tensors(training.optimizer), **_by_process(random)},
    }
    if training.watch.kept is not None:
        files[KEPT] = training.watch.kept
    digests = {}
    for name, tensors in files.items():
        # clones: safetensors refuses tensors that share memory, as tied layers do
        save_file({key: one.detach().cpu().clone().contiguous() for key, one in tensors.items()}, folder / name)
        digests[name] = _digest(folder / name)
        sync(folder / name)
    state = {
        "schema": SCHEMA,
        "identity": identity,
        "step": training.step,
        "tokens": training.tokens,
        "window": training.window,
        "unreached": sorted(training.unreached),
        "seconds": training.seconds,
        "aside": training.aside,
        "records": len(training.log.records),
        "decay": decay,
        "rates": [group["lr"] for group in training.optimizer.param_groups],
        "watch": training.watch.state(),
        "files": digests,
    }
    (folder / STATE).write_text(json.dumps(state, indent=1), encoding="utf-8")
    sync(folder / STATE)
    sync(folder)


def _by_process(states: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The random states of all processes, each under its own name; the first one's as they are."""
    return {
        f"process.{rank}.{name}" if rank else name: state
        for rank, one in enumerate(states)
        for name, state in one.items()
    }


def _of_process(rank: int, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The inverse of :func:`_by_process`, for one of them."""
    before = f"process.{rank}." if rank else ""
    return {name.removeprefix(before): tensor for name, tensor in tensors.items() if name.startswith(before)}


def _is_plain(value: Any) -> bool:
    return all(isinstance(one, (int, float)) for one in (value if isinstance(value, list) else [value]))


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{number}.{name}": value
        for number, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
        if isinstance(value, torch.Tensor)
    }


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        if number.isdecimal():
            state.setdefault(int(number), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _read_state(folder: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = json.loads((folder / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise TrainingError(_damaged(folder, f"{STATE}: {error}")) from error
    if not isinstance(state, dict):
        raise TrainingError(_damaged(folder, f"{STATE} holds no object"))
    if state.get("schema") != SCHEMA:
        raise TrainingError(f"{str(folder)!r} is of another version of adapterkit; resume with that, or start anew")
    missing = sorted({LAYERS, OPTIMIZER} - set(state.get("files") or {}))
    if missing:
        raise TrainingError(_damaged(folder, f"{STATE} lists no {missing[0]}"))
    return state


def _check_whole(folder: Path, state: Mapping[str, Any]) -> None:
    for name, digest in state["files"].items():
        path = folder / name
        if not path.is_file() or _digest(path) != digest:
            raise TrainingError(_damaged(folder, f"{name} is not what was written"))


def _damaged(folder: Path, what: str) -> str:
    return f"the checkpoint {str(folder)!r} is damaged ({what}); remove that folder to resume from the one before it"


def _differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What a run was started with and is not any more, each in a line."""
    before, after = dict(_flat(then)), dict(_flat(now))
    names = [name for name in (before | after) if before.get(name) != after.get(name)]
    return [f"{name}: was {before.get(name)!r:.80}, and is {after.get(name)!r:.80}" for name in names]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _remove(path: Path) -> None:
    """Take a folder away whole: what is found is a checkpoint, or nothing."""
    aside = path.with_name(f"{UNFINISHED}{path.name}")
    shutil.rmtree(aside, ignore_errors=True)
    if path != aside:
        path.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)
