"""What plain LoRA cannot hold, and what to do instead."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapterkit.effects import Dense, LowRank
from adapterkit.errors import SelectionError
from adapterkit.resident import effects_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from adapterkit.adapter import Adapter
    from adapterkit.registry import Registry

__all__ = ["updates_of"]

AT_INPUT = {"Tokens", "PrefixKV"}
BAKE = "bake it into a model, which every engine reads"


def updates_of(registry: Registry, adapter: Adapter) -> Mapping[str, list[LowRank]]:
    """What an adapter does, by site, where that is low-rank updates of linear layers and nothing else.

    Raises:
        SelectionError: It is something else; says what, and what to do with it.
    """
    who = f"the {adapter.method} adapter {adapter.digest[:12]}"
    method = registry.method(adapter.method)
    if method.traits.effects and set(method.traits.effects) <= AT_INPUT:
        raise SelectionError(
            f"{who} is a soft prompt, and no LoRA: it stands before the sequence and changes no weight; adapterkit and PEFT read "
            "it from the folder that it is saved in"
        )
    if method.effects(adapter.config, adapter.tensors) is None:
        raise SelectionError(f"what {who} does depends on the base's weights, which plain LoRA cannot hold; {BAKE}")
    found: dict[str, list[LowRank]] = {}
    for site, effects in sorted(effects_of(registry, adapter).items()):
        for one in effects:
            if not isinstance(one, LowRank):
                cure = f"bring it to a low rank with extract, or {BAKE}" if isinstance(one, Dense) else BAKE
                raise SelectionError(
                    f"{who} has a {type(one).__name__} at {site!r}, which plain LoRA cannot hold; {cure}"
                )
            if one.embedding:
                raise SelectionError(
                    f"{who} changes the embedding {site!r}, which readers of plain LoRA do not take; {BAKE}"
                )
            found.setdefault(site, []).append(one)
    return found
