"""Serving: many requests at once on one base, each with adapters of its own."""

from .answering import Answer, Piece, Token, Usage
from .asking import AskOptions, Choice
from .asynchronous import AsyncEngine
from .engine import Engine
from .loop import Stats
from .options import EngineOptions
from .watching import Watcher

__all__ = [
    "Answer",
    "AskOptions",
    "AsyncEngine",
    "Choice",
    "Engine",
    "EngineOptions",
    "Piece",
    "Stats",
    "Token",
    "Usage",
    "Watcher",
]
