"""Which sites the options mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from adapterkit import INPUT, ConfigError, Site, TargetError, pattern_value, shorten, targeted

from .config import contradictions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .config import LoraConfig

__all__ = ["low_rank_sites", "parameter_sites", "places", "resolved", "saved_sites", "token_sites"]

KINDS = ("linear", "conv1d", "embedding")


def resolved(config: LoraConfig, sites: Sequence[Site]) -> LoraConfig:
    """The same with alpha decided, and with everything that chooses targets folded into their names.

    Raises:
        ConfigError: Options that contradict each other, or that this base cannot do; all that is wrong together.
        TargetError: The base has no layer of such a name.
    """
    wrong = contradictions(config)
    if wrong:
        raise ConfigError("options of LoRA do not go together", wrong)
    low_rank, saved = low_rank_sites(config, sites, strict=True), saved_sites(config, sites)
    wrong = _too_high_ranks(config, low_rank) + _misfits(config, sites, {site.name for site in (*low_rank, *saved)})
    if wrong:
        raise ConfigError("options of LoRA do not fit this base", wrong)
    names = set(config.modules_to_save)
    if config.ensure_weight_tying:
        low_rank = _with_partners(low_rank, sites)
        names |= {site.name for site in _with_partners(saved, sites)} - {site.name for site in saved}
    stored = {site.kind for site in low_rank} - {"embedding"}
    return attrs.evolve(
        config,
        target_modules=shorten(low_rank, _kept(sites)),
        alpha=config.alpha or 2.0 * config.rank,
        exclude_modules=(),
        layers_to_transform=None,
        layers_pattern=(),
        modules_to_save=tuple(sorted(names)),
        target_parameters=tuple(sorted(config.target_parameters)),
        fan_in_fan_out=stored == {"conv1d"} and not config.target_parameters,
    )


def low_rank_sites(config: LoraConfig, sites: Sequence[Site], *, strict: bool) -> tuple[Site, ...]:
    """The sites with a low-rank update: the targets, without the layers of which a whole copy is trained."""
    if config.target_modules == () and config.target_parameters:
        return ()
    saved = {site.name for site in saved_sites(config, sites)}
    chosen = targeted(config, _kept(sites), strict=strict)
    return tuple(site for site in chosen if site.name not in saved)


def saved_sites(config: LoraConfig, sites: Sequence[Site]) -> tuple[Site, ...]:
    """The sites of which a whole copy is trained."""
    return tuple(site for site in places(sites) if _is_in(site.name, config.modules_to_save))


def parameter_sites(config: LoraConfig, sites: Sequence[Site]) -> dict[Site, tuple[str, ...]]:
    """The sites with targeted parameters, and their names in the order in which the module has them."""
    named = {
        site: tuple(name for name in site.parameters if _ends(f"{site.name}.{name}", config.target_parameters))
        for site in places(sites)
    }
    return {site: names for site, names in named.items() if names}


def token_sites(config: LoraConfig, sites: Sequence[Site]) -> dict[Site, tuple[int, ...]]:
    """The tokens to train by site; where the head shares the embedding's weight and tokens, by the embedding alone.

    Raises:
        TargetError: The base has no embedding of such a name.
    """
    wanted = config.trainable_token_indices
    if not wanted:
        return {}
    tables = [site for site in places(sites) if site.kind == "embedding" or site.is_head]
    if not isinstance(wanted, dict):
        table = next((site.module for site in sites if site.name == INPUT), None)
        return {site: wanted for site in tables if site.module is table}
    chosen = {site: index for name, index in wanted.items() for site in _called(name, tables)}
    by_name: Mapping[str, tuple[int, ...]] = {site.name: index for site, index in chosen.items()}
    return {site: index for site, index in chosen.items() if by_name.get(site.tied_to) != index}


def places(sites: Sequence[Site]) -> tuple[Site, ...]:
    """Every site that is a module of its own."""
    return tuple(site for site in sites if site.name != INPUT)


def _kept(sites: Sequence[Site]) -> tuple[Site, ...]:
    return tuple(site for site in sites if site.kind in KINDS)


def _called(name: str, tables: Sequence[Site]) -> list[Site]:
    found = [site for site in tables if site.name.endswith(name)]
    if not found:
        raise TargetError("embedding", name, {site.name for site in tables})
    return found


def _ends(name: str, targets: Sequence[str]) -> bool:
    return any(name == target or name.endswith(f".{target}") for target in targets)


def _is_in(name: str, wanted: Sequence[str]) -> bool:
    """Whether the module, or one that it is in, has a name that ends so; PEFT asks for no dot before the end."""
    parts = name.split(".")
    paths = [".".join(parts[:count]) for count in range(1, len(parts) + 1)]
    return any(path.endswith(end) for path in paths for end in wanted)


def _too_high_ranks(config: LoraConfig, low_rank: Sequence[Site]) -> list[str]:
    """Where there are fewer directions to start from than the rank asks for."""
    if not config.is_shifted and config.init_lora_weights not in ("loftq", "eva"):
        return []
    most = {site.name: min(site.in_features, site.out_features) for site in low_rank if site.kind != "embedding"}
    ranks = {name: pattern_value(config.rank_pattern, name, config.rank) for name in most}
    return [
        f"init_lora_weights: {config.init_lora_weights!r} has {most[name]} directions at {name!r}, and the rank is {rank}"
        for name, rank in ranks.items()
        if rank > most[name]
    ]


def _misfits(config: LoraConfig, sites: Sequence[Site], taken: set[str]) -> list[str]:
    """What the options ask for that this base does not have, or that is trained already, one line for each."""
    for name in config.modules_to_save:
        if not any(_is_in(site.name, (name,)) for site in places(sites)):
            raise TargetError("module to save", name, {part for site in sites for part in site.name.split(".")})
    for name in config.target_parameters:
        if not any(_ends(f"{site.name}.{one}", (name,)) for site in places(sites) for one in site.parameters):
            fused = {one for site in sites if site.kind == "module" for one in site.parameters}
            raise TargetError("target parameter", name, fused)
    found = [
        f"target_parameters: {site.name!r} is trained as a target, as a whole or by its bias already"
        for site in parameter_sites(config, sites)
        if site.name in taken or (config.bias and "bias" in site.parameters)
    ]
    found += [
        f"trainable_token_indices: {site.name!r} is trained as a target or as a whole already"
        for site in token_sites(config, sites)
        if site.name in taken
    ]
    if config.ensure_weight_tying and not any(site.tied_to for site in sites):
        found.append("ensure_weight_tying: no two layers of this base share a weight")
    if config.ensure_weight_tying and (config.use_dora or config.is_shifted):
        found.append("ensure_weight_tying: goes with neither use_dora nor an initialisation from the weights")
    return found


def _with_partners(chosen: Sequence[Site], sites: Sequence[Site]) -> tuple[Site, ...]:
    """With every layer that shares the weight of one of them."""
    names, weights = {site.name for site in chosen}, {site.tied_to or site.name for site in chosen}
    return tuple(site for site in places(sites) if site.name in names or (site.tied_to or site.name) in weights)
