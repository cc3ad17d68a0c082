"""Every error that adapterkit raises on purpose.

Each says what happened, the value seen and what would have worked, and is also the builtin that a caller would expect::

    AdapterkitError
    ├── ConfigError           (ValueError)      options that do not fit; all problems together
    ├── UnknownNameError      (LookupError)     no plugin, adapter or site of that name
    │   └── TargetError                         target modules that match nothing in this base
    ├── PluginError           (RuntimeError)
    │   ├── PluginClashError                    two plugins provide the same name
    │   └── BrokenPluginError (ImportError)     a plugin that is installed but cannot be loaded
    ├── BaseLoadError         (OSError)         a base model that cannot be loaded
    ├── DataError             (ValueError)      rows that cannot be used
    ├── EngineError           (RuntimeError)    a serving engine that cannot answer
    │   ├── DeadlineError     (TimeoutError)    a request that was given up because its time was over
    │   └── OverloadedError                     too many requests wait already; says when to ask again
    ├── ArtifactError         (ValueError)      an adapter folder that is refused
    │   ├── BaseMismatchError                   made for another base
    │   └── TrustError        (PermissionError) from a source, or signed by nobody, that the policy trusts
    ├── ConflictError         (RuntimeError)    another writer was faster: what was to be changed is not what it was
    ├── PublishError          (ValueError)      an adapter that is not fit to be published; all problems together
    ├── RemoteError           (OSError)         a place elsewhere that cannot be reached, or does not keep its word
    ├── RunError              (ValueError)      a run's folder that cannot be read
    ├── SelectionError        (ValueError)      adapters that cannot act as asked
    ├── StoreError            (RuntimeError)    a store that is damaged, or cannot be written
    └── TrainingError         (RuntimeError)    a run that cannot go on
        └── JobsFailedError                     some of several jobs; the others' adapters are in it
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .adapter import Adapter

__all__ = [
    "AdapterkitError",
    "ArtifactError",
    "BaseLoadError",
    "BaseMismatchError",
    "BrokenPluginError",
    "ConfigError",
    "ConflictError",
    "DataError",
    "DeadlineError",
    "EngineError",
    "JobsFailedError",
    "OverloadedError",
    "PluginClashError",
    "PluginError",
    "PublishError",
    "RemoteError",
    "RunError",
    "SelectionError",
    "StoreError",
    "TargetError",
    "TrainingError",
    "TrustError",
    "UnknownNameError",
    "listed",
    "suggest",
]

MOST_NAMES = 20
"""How many names an error lists: it must fit on a screen."""


class AdapterkitError(Exception):
    """The root: catch it to catch everything that adapterkit raises on purpose."""


class ConfigError(AdapterkitError, ValueError):
    """Options that do not fit; ``problems`` has one line for each."""

    def __init__(self, what: str, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__(f"{what}:{_lines(self.problems)}")


class UnknownNameError(AdapterkitError, LookupError):
    """A name that nothing answers to; ``reason`` says why, where it is not that nobody has heard of it."""

    def __init__(self, kind: str, name: str, available: Iterable[str], hint: str = "", *, reason: str = "") -> None:
        if reason:
            super().__init__(f"no {kind} {name!r}: {reason}")
            return
        known = sorted(available)
        tail = f" {hint}" if hint else ""
        super().__init__(f"no {kind} {name!r}{suggest(name, known) or '.'} Available: {listed(known)}.{tail}")


class TargetError(UnknownNameError):
    """Target modules that match nothing in this base."""


class PluginError(AdapterkitError, RuntimeError):
    """A plugin that does not keep its side of the contract."""


class PluginClashError(PluginError):
    """Two plugins provide the same name."""


class BrokenPluginError(PluginError, ImportError):
    """A plugin that is installed but cannot be loaded."""


class BaseLoadError(AdapterkitError, OSError):
    """A base model that cannot be loaded."""


class DataError(AdapterkitError, ValueError):
    """Rows that cannot be used."""


class ArtifactError(AdapterkitError, ValueError):
    """An adapter folder that is refused; nothing of it was kept."""


class BaseMismatchError(ArtifactError):
    """An adapter that was made for another base."""


class TrustError(ArtifactError, PermissionError):
    """An adapter that the trust policy does not let in: its source is not named, or nobody who may has signed it."""


class ConflictError(AdapterkitError, RuntimeError):
    """What was to be changed is no longer what the caller took it for; nothing was changed."""


class EngineError(AdapterkitError, RuntimeError):
    """A serving engine that cannot answer: it is stopped, or a step of it failed."""


class DeadlineError(EngineError, TimeoutError):
    """A request that was given up because its time was over."""


class OverloadedError(EngineError):
    """Too many requests wait already; ``retry_after`` is in how many seconds it is worth asking again."""

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class PublishError(AdapterkitError, ValueError):
    """An adapter that is not fit to be published; ``problems`` has one line for each reason. Nothing was sent."""

    def __init__(self, what: str, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__(f"{what}:{_lines(self.problems)}")


class RemoteError(AdapterkitError, OSError):
    """A place elsewhere that cannot be reached, or that gave back other bytes than it was given."""


class RunError(AdapterkitError, ValueError):
    """A run's folder that cannot be read: it is none, or a file in it is broken or of a later version."""


class SelectionError(AdapterkitError, ValueError):
    """Adapters that cannot act as asked."""


class StoreError(AdapterkitError, RuntimeError):
    """A store that is damaged, or cannot be written; what is damaged is named."""


class TrainingError(AdapterkitError, RuntimeError):
    """A run that cannot go on."""


class JobsFailedError(TrainingError):
    """Some of several jobs could not go on; ``adapters`` has what the others made, and None for these, in their order."""

    def __init__(self, problems: Mapping[str, Exception], adapters: Sequence[Adapter | None]) -> None:
        self.adapters = tuple(adapters)
        failed = _lines(f"{name}: {error}" for name, error in problems.items())
        super().__init__(f"{len(problems)} of {len(self.adapters)} jobs failed; the others are trained:{failed}")


def suggest(name: str, available: Iterable[str]) -> str:
    """``"; did you mean 'lora'?"`` when something close exists, else nothing."""
    as_written = {known.casefold(): known for known in available}
    wanted = name.casefold()
    in_a_family = [known for known in as_written if known.partition(":")[2] == wanted]  # "ia3" for "peft:ia3"
    close = in_a_family or get_close_matches(wanted, list(as_written), n=1, cutoff=0.6)
    return f"; did you mean {as_written[close[0]]!r}?" if close else ""


def listed(names: list[str]) -> str:
    """So many names as fit into a few lines, those of families such as ``peft:loha`` last."""
    plain_first = sorted(names, key=lambda name: ":" in name)
    more = len(names) - MOST_NAMES
    return ", ".join(plain_first[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "") if names else "none"


def _lines(problems: Iterable[str]) -> str:
    return "".join(f"\n  - {problem}" for problem in problems)
