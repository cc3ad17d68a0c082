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
    )
    from .effects import LowRank
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
    from .methods import LayerMethod
    from .registry import Registry
    from .sites import Site, pattern_value

__version__ = "0.1.0"

_HOMES = {
    "build_config": "config",
    "pattern_value": "sites",
    "Adapter": "adapter",
    "AdapterkitError": "errors",
    "ArtifactError": "errors",
    "Base": "base",
    "BaseLoadError": "errors",
    "BaseMismatchError": "errors",
    "BrokenPluginError": "errors",
    "ConfigError": "errors",
    "Conversation": "contracts",
    "DataError": "errors",
    "DataFormat": "contracts",
    "LayerMethod": "methods",
    "Example": "contracts",
    "Forward": "contracts",
    "Loss": "contracts",
    "LowRank": "effects",
    "Message": "contracts",
    "Method": "contracts",
    "Metric": "contracts",
    "Objective": "contracts",
    "PluginClashError": "errors",
    "PluginError": "errors",
    "Registry": "registry",
    "Run": "contracts",
    "SelectionError": "errors",
    "Site": "sites",
    "TargetError": "errors",
    "Text": "contracts",
    "TrainOptions": "contracts",
    "TrainingError": "errors",
    "UnknownNameError": "errors",
    "hookimpl": "hooks",
}

__all__ = [
    "Adapter",
    "AdapterkitError",
    "ArtifactError",
    "Base",
    "BaseLoadError",
    "BaseMismatchError",
    "BrokenPluginError",
    "ConfigError",
    "Conversation",
    "DataError",
    "DataFormat",
    "Example",
    "Forward",
    "LayerMethod",
    "Loss",
    "LowRank",
    "Message",
    "Method",
    "Metric",
    "Objective",
    "PluginClashError",
    "PluginError",
    "Registry",
    "Run",
    "SelectionError",
    "Site",
    "TargetError",
    "Text",
    "TrainOptions",
    "TrainingError",
    "UnknownNameError",
    "__version__",
    "build_config",
    "hookimpl",
    "pattern_value",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
