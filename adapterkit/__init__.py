"""Train, swap and mix adapters of one shared base model; every method is a plugin.

Importing this imports neither torch nor transformers: names are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .adapter import Adapter
    from .base import Base
    from .config import build_config
    from .contracts import (
        Conversation,
        DataFormat,
        Example,
        Forward,
        Loss,
        Message,
        Method,
        Metric,
        Objective,
        Run,
        Text,
        TrainOptions,
        Traits,
    )
    from .effects import Bias, Dense, LowRank, PrefixKV, Rows, Scale, Tokens
    from .errors import (
        AdapterkitError,
        ArtifactError,
        BaseLoadError,
        BaseMismatchError,
        BrokenPluginError,
        ConfigError,
        DataError,
        PluginClashError,
        PluginError,
        SelectionError,
        TargetError,
        TrainingError,
        UnknownNameError,
    )
    from .hooks import hookimpl
    from .methods import LayerConfig, LayerMethod
    from .registry import Registry
    from .runtime.actions import rerun
    from .sites import INPUT, SHARED, Site, match, pattern_value, shorten, targeted

__version__ = "0.1.0"

_HOMES = {
    "Adapter": "adapter",
    "AdapterkitError": "errors",
    "ArtifactError": "errors",
    "Base": "base",
    "BaseLoadError": "errors",
    "BaseMismatchError": "errors",
    "Bias": "effects",
    "BrokenPluginError": "errors",
    "build_config": "config",
    "ConfigError": "errors",
    "Conversation": "contracts",
    "DataError": "errors",
    "DataFormat": "contracts",
    "Dense": "effects",
    "Example": "contracts",
    "Forward": "contracts",
    "hookimpl": "hooks",
    "INPUT": "sites",
    "LayerConfig": "methods",
    "LayerMethod": "methods",
    "Loss": "contracts",
    "LowRank": "effects",
    "match": "sites",
    "Message": "contracts",
    "Method": "contracts",
    "Metric": "contracts",
    "Objective": "contracts",
    "PrefixKV": "effects",
    "pattern_value": "sites",
    "PluginClashError": "errors",
    "PluginError": "errors",
    "Registry": "registry",
    "rerun": "runtime.actions",
    "Rows": "effects",
    "Run": "contracts",
    "Scale": "effects",
    "SelectionError": "errors",
    "SHARED": "sites",
    "shorten": "sites",
    "Site": "sites",
    "targeted": "sites",
    "TargetError": "errors",
    "Text": "contracts",
    "Tokens": "effects",
    "TrainingError": "errors",
    "TrainOptions": "contracts",
    "Traits": "contracts",
    "UnknownNameError": "errors",
}

__all__ = [
    "INPUT",
    "SHARED",
    "Adapter",
    "AdapterkitError",
    "ArtifactError",
    "Base",
    "BaseLoadError",
    "BaseMismatchError",
    "Bias",
    "BrokenPluginError",
    "ConfigError",
    "Conversation",
    "DataError",
    "DataFormat",
    "Dense",
    "Example",
    "Forward",
    "LayerConfig",
    "LayerMethod",
    "Loss",
    "LowRank",
    "Message",
    "Method",
    "Metric",
    "Objective",
    "PluginClashError",
    "PluginError",
    "PrefixKV",
    "Registry",
    "Rows",
    "Run",
    "Scale",
    "SelectionError",
    "Site",
    "TargetError",
    "Text",
    "Tokens",
    "TrainOptions",
    "TrainingError",
    "Traits",
    "UnknownNameError",
    "__version__",
    "build_config",
    "hookimpl",
    "match",
    "pattern_value",
    "rerun",
    "shorten",
    "targeted",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
