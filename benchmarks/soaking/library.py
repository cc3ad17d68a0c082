"""Adapters by number: each is made anew from its number alone, whoever needs it."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapterkit import Base, Blend, Text
from adapterkit.serving import Choice
from tests.support import EXAMPLE_BASE, make_adapter

if TYPE_CHECKING:
    from adapterkit import Adapter

__all__ = ["DTYPE", "Library", "Parts"]

DTYPE = "float32"
ATTENTION = ("q_proj", "v_proj")
KINDS: tuple[tuple[str, float, dict[str, Any]], ...] = (
    ("lora", 0.1, {"rank": 2, "target_modules": ATTENTION}),
    ("lora", 0.05, {"rank": 8, "target_modules": ATTENTION}),
    ("lora", 0.05, {"rank": 4}),
    ("lora", 0.05, {"rank": 4, "target_modules": ATTENTION, "use_dora": True}),
    ("prompt_tuning", 0.2, {"tokens": 8}),
    ("prefix_tuning", 0.2, {"tokens": 8}),
    ("peft:ia3", 0.5, {}),
    ("full", 0.02, {"target_modules": ("layers.1.self_attn.q_proj",)}),
)
STACKABLE = 4
"""The first kinds; each of them acts together with another."""

Parts = tuple[tuple[int, float], ...]
"""Numbers of adapters with their weights; none for the base alone."""


class Library:
    """The base, and adapters of eight kinds: number n is of the kind n modulo 8, with random weights of the seed n."""

    def __init__(self) -> None:
        self.base = Base(EXAMPLE_BASE, dtype=DTYPE)
        self.made = lru_cache(maxsize=64)(self._make)
        self._digests: dict[int, str] = {}

    def _make(self, number: int) -> Adapter:
        method, scale, options = KINDS[number % len(KINDS)]
        return make_adapter(self.base, method=method, seed=number, scale=scale, **options)

    def digest(self, parts: Parts) -> str:
        """What the server calls what acts, in ``x-adapterkit-digest``."""
        for number, _ in parts:
            if number not in self._digests:
                self._digests[number] = self.made(number).digest
        choice = Choice("", tuple((self._digests[number], weight) for number, weight in parts))
        return choice.digest or self.base.reference.fingerprint

    def save(self, number: int, folder: Path) -> Path:
        """Write an adapter into a folder."""
        return Path(self.made(number).save(folder))

    def answer(self, parts: Parts, prompt: str, *, is_chat: bool, tokens: int) -> str:
        """The base's own greedy answer to one prompt by itself."""
        given: Any = [{"role": "user", "content": prompt}] if is_chat else Text(prompt)
        acting = self._acting(parts) if parts else None
        (text,) = self.base.generate([given], adapter=acting, max_new_tokens=tokens, temperature=0.0)
        return str(text)

    def _acting(self, parts: Parts) -> Any:
        if len(parts) == 1 and parts[0][1] == 1.0:
            return self.made(parts[0][0])
        return Blend({self.made(number): weight for number, weight in parts})
