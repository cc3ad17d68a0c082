"""Serving over HTTP: OpenAI's API, adapters and aliases, health and figures."""

from .app import create_app
from .keys import Keys
from .running import Server, listening, run
from .settings import Settings

__all__ = ["Keys", "Server", "Settings", "create_app", "listening", "run"]
