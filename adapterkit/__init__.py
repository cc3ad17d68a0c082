"""Train, swap and mix adapters of one shared base model; every method is a plugin.

Importing this imports neither torch nor transformers: names are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .adapter import Adapter
    from .base import Base
    from .compose import Blend, Stack
    from .config import build_config
    from .contracts import (
        Conversation,
        DataFormat,
        Example,
        Exporter,
        Forward,
        Logger,
        Loss,
        MergeStrategy,
        Message,
        Method,
        Metric,
        Objective,
        Preference,
        Remote,
        Repository,
        Revision,
        Run,
        Sink,
        Text,
        TrainOptions,
        Traits,
    )
    from .differing import diff
    from .effects import Bias, Dense, Effect, Effects, LowRank, PrefixKV, Rows, Scale, Tokens
    from .errors import (
        AdapterkitError,
        ArtifactError,
        BaseLoadError,
        BaseMismatchError,
        BrokenPluginError,
        ConfigError,
        ConflictError,
        DataError,
        DeadlineError,
        EngineError,
        JobsFailedError,
        OverloadedError,
        PluginClashError,
        PluginError,
        PublishError,
        RemoteError,
        RunError,
        SelectionError,
        StoreError,
        TargetError,
        TrainingError,
        TrustError,
        UnknownNameError,
    )
    from .exporting import Export, export
    from .extracting import extract
    from .hooks import hookimpl
    from .lineage import trace
    from .merging import merge
    from .methods import LayerConfig, LayerMethod
    from .publishing import Published, publish, pull
    from .recipes import run_recipe
    from .registry import Registry
    from .report import compare_runs, write_report
    from .runtime.actions import rerun
    from .serving import AsyncEngine, Engine
    from .sites import INPUT, SHARED, Site, match, pattern_value, shorten, targeted
    from .store import Store, Version
    from .train.jobs import Job
    from .trust import sign

__version__ = "0.1.0"

_HOMES = {
    "Adapter": "adapter",
    "AdapterkitError": "errors",
    "ArtifactError": "errors",
    "AsyncEngine": "serving",
    "Base": "base",
    "BaseLoadError": "errors",
    "BaseMismatchError": "errors",
    "Bias": "effects",
    "Blend": "compose",
    "BrokenPluginError": "errors",
    "build_config": "config",
    "compare_runs": "report",
    "ConfigError": "errors",
    "ConflictError": "errors",
    "Conversation": "contracts",
    "DataError": "errors",
    "DataFormat": "contracts",
    "DeadlineError": "errors",
    "diff": "differing",
    "Dense": "effects",
    "Effect": "effects",
    "Effects": "effects",
    "Engine": "serving",
    "EngineError": "errors",
    "Example": "contracts",
    "Export": "exporting",
    "export": "exporting",
    "Exporter": "contracts",
    "extract": "extracting",
    "Forward": "contracts",
    "hookimpl": "hooks",
    "INPUT": "sites",
    "Job": "train.jobs",
    "JobsFailedError": "errors",
    "LayerConfig": "methods",
    "LayerMethod": "methods",
    "Logger": "contracts",
    "Loss": "contracts",
    "LowRank": "effects",
    "match": "sites",
    "merge": "merging",
    "MergeStrategy": "contracts",
    "Message": "contracts",
    "Method": "contracts",
    "Metric": "contracts",
    "Objective": "contracts",
    "OverloadedError": "errors",
    "pattern_value": "sites",
    "PluginClashError": "errors",
    "PluginError": "errors",
    "Preference": "contracts",
    "PrefixKV": "effects",
    "PublishError": "errors",
    "publish": "publishing",
    "Published": "publishing",
    "pull": "publishing",
    "Registry": "registry",
    "Remote": "contracts",
    "RemoteError": "errors",
    "Repository": "contracts",
    "rerun": "runtime.actions",
    "Revision": "contracts",
    "Rows": "effects",
    "Run": "contracts",
    "run_recipe": "recipes",
    "RunError": "errors",
    "Scale": "effects",
    "SelectionError": "errors",
    "SHARED": "sites",
    "shorten": "sites",
    "sign": "trust.signing",
    "Sink": "contracts",
    "Site": "sites",
    "Stack": "compose",
    "Store": "store",
    "StoreError": "errors",
    "Version": "store",
    "targeted": "sites",
    "TargetError": "errors",
    "Text": "contracts",
    "Tokens": "effects",
    "trace": "lineage",
    "TrainingError": "errors",
    "TrainOptions": "contracts",
    "Traits": "contracts",
    "TrustError": "errors",
    "UnknownNameError": "errors",
    "write_report": "report",
}

__all__ = [
    "INPUT",
    "SHARED",
    "Adapter",
    "AdapterkitError",
    "ArtifactError",
    "AsyncEngine",
    "Base",
    "BaseLoadError",
    "BaseMismatchError",
    "Bias",
    "Blend",
    "BrokenPluginError",
    "ConfigError",
    "ConflictError",
    "Conversation",
    "DataError",
    "DataFormat",
    "DeadlineError",
    "Dense",
    "Effect",
    "Effects",
    "Engine",
    "EngineError",
    "Example",
    "Export",
    "Exporter",
    "Forward",
    "Job",
    "JobsFailedError",
    "LayerConfig",
    "LayerMethod",
    "Logger",
    "Loss",
    "LowRank",
    "MergeStrategy",
    "Message",
    "Method",
    "Metric",
    "Objective",
    "OverloadedError",
    "PluginClashError",
    "PluginError",
    "Preference",
    "PrefixKV",
    "PublishError",
    "Published",
    "Registry",
    "Remote",
    "RemoteError",
    "Repository",
    "Revision",
    "Rows",
    "Run",
    "RunError",
    "Scale",
    "SelectionError",
    "Sink",
    "Site",
    "Stack",
    "Store",
    "StoreError",
    "TargetError",
    "Text",
    "Tokens",
    "TrainOptions",
    "TrainingError",
    "Traits",
    "TrustError",
    "UnknownNameError",
    "Version",
    "__version__",
    "build_config",
    "compare_runs",
    "diff",
    "export",
    "extract",
    "hookimpl",
    "match",
    "merge",
    "pattern_value",
    "publish",
    "pull",
    "rerun",
    "run_recipe",
    "shorten",
    "sign",
    "targeted",
    "trace",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
