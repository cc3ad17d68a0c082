"""A process of its own: imports the plugin as the first one there, loads a saved adapter, and says what it saw."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import attrs

from .outcomes import CheckFailed, DoesNotApply

if TYPE_CHECKING:
    from torch import Tensor

    from .subject import Subject

__all__ = ["Elsewhere", "digest_of_answers", "elsewhere"]

SECONDS = 300


@attrs.frozen
class Elsewhere:
    """What a fresh process saw.

    Attributes:
        changed: What the import of the plugin changed of that process.
        digest: Of the answers of the adapter that it loaded; empty where it could not.
        error: Why it could not.
    """

    changed: tuple[str, ...]
    digest: str = ""
    error: str = ""


def elsewhere(subject: Subject) -> Elsewhere:
    """Start the process, once for each subject.

    Raises:
        DoesNotApply: The plugin is an object of this process.
    """
    found: Elsewhere = subject.remember("elsewhere", lambda: _start(subject))
    return found


def _start(subject: Subject) -> Elsewhere:
    request = {"name": subject.name, "plugins": [_importable(one) for one in subject.plugins]}
    try:
        request |= subject.saved()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is another check's to say
        request["error"] = f"{type(error).__name__}: {error}"
    other_hashes = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    environ = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str(Path(one).resolve()) for one in sys.path),
        "PYTHONHASHSEED": other_hashes,
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(  # noqa: S603 - this module, by this interpreter
        [sys.executable, "-m", __name__],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
        env=environ,
        timeout=SECONDS,
    )
    if done.returncode:
        raise CheckFailed(f"a fresh process cannot import the plugin: {done.stderr.strip().splitlines()[-1]}")
    answer = json.loads(done.stdout.splitlines()[-1])
    return Elsewhere(tuple(answer["changed"]), answer["digest"], answer["error"])


def _importable(plugin: Any) -> str:
    if isinstance(plugin, ModuleType):
        return plugin.__name__
    if isinstance(plugin, (str, os.PathLike)):
        return str(Path(plugin).resolve())
    raise DoesNotApply(
        "the plugin is an object of this process, which another one cannot import: give a file or a module"
    )


def digest_of_answers(logits: Tensor) -> str:
    """The sha256 of every bit."""
    from .comparing import bits

    return hashlib.sha256(bits(logits)).hexdigest()


def _main() -> None:
    """Read a request from standard input, and answer it as the last line of standard output."""
    import importlib

    import torch
    import transformers  # noqa: F401 - what it changes is not the plugin's doing

    from adapterkit.registry import Registry

    from .comparing import changed, surroundings
    from .models import FAMILIES
    from .words import tiny_tokenizer

    request = json.load(sys.stdin)
    torch.set_num_threads(1)  # as in the process that asks
    FAMILIES["llama"](), tiny_tokenizer()
    before = surroundings()
    registry = Registry()
    for plugin in request["plugins"]:
        registry.add(plugin if plugin.endswith(".py") else importlib.import_module(plugin))
    registry.method(request["name"])
    answer = {"changed": changed(before, surroundings()), "digest": "", "error": request.get("error", "")}
    if "folder" in request:
        try:
            answer["digest"] = _answer(registry, request)
        except Exception as error:  # noqa: BLE001 - it is what is asked
            answer["error"] = f"{type(error).__name__}: {error}"
    print(json.dumps(answer))  # noqa: T201 - it is how the process answers


def _answer(registry: Any, request: dict[str, Any]) -> str:
    from adapterkit.base import Base

    from .words import some_ids, tiny_tokenizer

    base = Base(request["base"], tokenizer=tiny_tokenizer(), registry=registry, device="cpu", **request["options"])
    adapter = base.load(request["folder"])
    return digest_of_answers(base.logits(some_ids(), adapter=adapter))


if __name__ == "__main__":
    _main()
