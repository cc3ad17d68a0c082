"""What PEFT leaves to its user and depends on the base: which layers, and sizes that divide theirs."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from adapterkit import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from adapterkit import Site

__all__ = ["default_targets", "feedforward_modules", "fitted_sizes"]

_MADE_FOR = re.compile(r"transformers\.models\.(\w+)\.")


def default_targets(peft_type: str, sites: Sequence[Site]) -> tuple[str, ...] | str:
    """The targets that PEFT has for this architecture; where it has none, what they have in common."""
    known = _for_architecture(_mapping(f"{peft_type.replace('_', '')}_TARGET"), sites)
    if known:
        return known
    if peft_type == "LN_TUNING":
        return tuple(site.name for site in sites if _is_norm(site))
    return "all-linear"


def feedforward_modules(targets: Sequence[Site], sites: Sequence[Site]) -> tuple[str, ...]:
    """Those of IA3's targets whose input is scaled: PEFT's choice, else those that lead back from the MLP's wide features."""
    known = _for_architecture(_mapping("IA3_FEEDFORWARD"), sites) or ()
    named = tuple(site.name for site in targets if any(_ends(site.name, end) for end in known))
    # what leads to fewer keys and values than queries leads to fewer features too, but not to the model's own
    hidden = {site.out_features for site in sites if site.kind == "embedding"}
    return named or tuple(
        site.name for site in targets if site.in_features > site.out_features and site.out_features in hidden
    )


def fitted_sizes(
    fitted: Mapping[str, str], config: Any, defaults: Mapping[str, Any], chosen: Sequence[Site]
) -> dict[str, int]:
    """For each option that was left open, the largest size up to PEFT's default that every targeted layer allows.

    Raises:
        ConfigError: There is none but 1.
    """
    found = {}
    for name, side in fitted.items():
        if getattr(config, name) is not None:
            continue
        sizes = [size for site in chosen for size in _sizes(site, side)]
        if side.startswith("most"):
            found[name] = min(defaults[name], *sizes)
            continue
        found[name] = max(size for size in range(1, defaults[name] + 1) if math.gcd(*sizes) % size == 0)
        if found[name] == 1:
            raise ConfigError(
                "options do not fit this base", [f"{name}: no size divides every targeted layer; name layers"]
            )
    return found


def _sizes(site: Site, side: str) -> tuple[int, ...]:
    inner, outer = site.in_features, site.out_features
    return {
        "in": (inner,),
        "out": (outer,),
        "both": (inner, outer),
        "most in": (inner,),
        "most numbers": (inner * outer,),
    }[side]


def _mapping(name: str) -> Mapping[str, Sequence[str]]:
    from peft.utils import constants

    found: Mapping[str, Sequence[str]] = getattr(constants, f"TRANSFORMERS_MODELS_TO_{name}_MODULES_MAPPING", {})
    return found


def _for_architecture(mapping: Mapping[str, Sequence[str]], sites: Sequence[Site]) -> tuple[str, ...] | None:
    """The entry of the base's architecture: by the modules' own package, else the longest whose names are all there."""
    there = [one for one in mapping.values() if all(any(_ends(site.name, name) for site in sites) for name in one)]
    said = [
        mapping[name]
        for site in sites
        if (found := _MADE_FOR.match(type(site.module).__module__))
        for name in (found[1], f"{found[1]}_text")  # the second is what the language part of a larger model is called
        if name in mapping
    ]
    best = next((one for one in said if one in there), max(there, key=len, default=None))
    return tuple(best) if best else None


def _is_norm(site: Site) -> bool:
    return "norm" in type(site.module).__name__.lower() and site.kind == "module"


def _ends(name: str, end: str) -> bool:
    return name == end or name.endswith(f".{end}")
