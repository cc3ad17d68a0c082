"""What a server tells of itself: figures always, traces where the environment says where they go."""

from __future__ import annotations

import os

from adapterkit.errors import ConfigError

from .metrics import Metrics
from .watching import Watchers

__all__ = ["telemetry"]

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def telemetry() -> Watchers:
    """A watcher for an engine: figures; and traces with ``OTEL_EXPORTER_OTLP_ENDPOINT``, as OpenTelemetry's variables say.

    Raises:
        ConfigError: Traces are asked for, and ``adapterkit[otel]`` is not installed.
    """
    if not _traces_are_wanted():
        return Watchers(Metrics())
    try:
        from .traces import traces_of_environment
    except ImportError as error:
        raise ConfigError("traces do not fit", [f"{error}: pip install 'adapterkit[otel]'"]) from error
    return Watchers(Metrics(), traces_of_environment())


def _traces_are_wanted() -> bool:
    off = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or os.environ.get("OTEL_TRACES_EXPORTER") == "none"
    return not off and any(os.environ.get(name) for name in ENDPOINTS)
