"""Steps of the base: pages of keys and values, what each row does, and which token comes next."""

from .pool import KVPool, Pages
from .runner import RANKS, Row, Runner

__all__ = ["RANKS", "KVPool", "Pages", "Row", "Runner"]
