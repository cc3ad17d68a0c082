"""Sites: the places of a base that an adapter may act on, and how target modules choose among them."""

from __future__ import annotations

import inspect
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import attrs
import regex
from torch import nn

from .errors import ConfigError, TargetError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor

__all__ = [
    "ALL_LINEAR",
    "INPUT",
    "SHARED",
    "Site",
    "find_sites",
    "frozen_weight",
    "match",
    "pattern_value",
    "shorten",
    "targeted",
]

ALL_LINEAR = "all-linear"
INPUT = "input"
"""The name of the site before the first layer: the sequence of embeddings itself."""
SHARED = "shared"
"""No site: where an adapter keeps what its layers share, such as VeRA's two matrices for all of them."""
LINEAR = ("linear", "conv1d")
PATTERN_SECONDS = 0.25
"""How long the regular expressions of a configuration may take on one name: patterns come from files of strangers."""

_PLAIN = regex.compile(r"[\w.]+")


@attrs.frozen(eq=False)
class Site:
    """A place that an adapter may act on.

    Attributes:
        name: The module's path in the model, such as ``"model.layers.0.self_attn.q_proj"``.
        kind: ``"linear"``, ``"conv1d"`` (GPT-2's layer, whose weight is stored transposed), ``"embedding"``, ``"module"`` (any
            other with parameters of its own: a norm, the experts of a mixture), or ``"input"``: the sequence of embeddings.
        in_features: Size of the input; the number of tokens for an embedding and the input; 0 where there is no one size.
        out_features: Size of the output; 0 where there is no one size.
        is_head: Whether it turns hidden states into logits.
        tied_to: The name of an earlier site whose weight is this one's too; else empty.
        cache: For the input, the shape of what attention keeps of a token: layers, key-value heads, size of a head.
        module: The layer itself; it is never changed.
    """

    name: str
    kind: str
    in_features: int
    out_features: int
    is_head: bool = False
    tied_to: str = ""
    cache: tuple[int, ...] = ()
    module: nn.Module = attrs.field(repr=False, kw_only=True)

    @property
    def weight(self) -> Tensor:
        """The base's weight as ``(out_features, in_features)``, a view where it is stored otherwise; packed if quantized."""
        weight: Tensor = self.module.weight  # type: ignore[assignment]
        return weight if self.kind == "linear" else weight.T

    @property
    def is_quantized(self) -> bool:
        """Whether the weight is stored as whole numbers and has to be computed."""
        return any(not parameter.is_floating_point() for parameter in self.parameters.values())

    @property
    def frozen_weight(self) -> Tensor | None:
        """See :func:`frozen_weight`."""
        return frozen_weight(self.module)

    def dense_weight(self) -> Tensor:
        """The weight as ``(out_features, in_features)`` in floating point, computed where it is quantized."""
        return dequantize(self.module) if self.is_quantized else self.weight

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """The module's own parameters, not those of modules in it."""
        return {name: one for name, one in self.module._parameters.items() if one is not None}  # noqa: SLF001

    @property
    def output_scale(self) -> float:
        """What an embedding multiplies its rows by, as Gemma's does; an update of the rows is multiplied by it as well."""
        scale = getattr(self.module, "embed_scale", None) if self.kind == "embedding" else None
        return 1.0 if scale is None else float(scale)


def find_sites(model: nn.Module) -> tuple[Site, ...]:
    """Every site of a transformers model, in the model's own order, the input first.

    A linear layer is any ``nn.Linear``, bitsandbytes' 4-bit and 8-bit layers included, and GPT-2's ``Conv1D``.
    """
    head = _output_embeddings(model)
    found: dict[str, Site] = {}
    owners: dict[int, str] = {}
    for site in (*_input(model), *(_site(name, one, is_head=one is head) for name, one in model.named_modules())):
        if site is None:
            continue
        weight = site.module._parameters.get("weight") if site.kind != INPUT else None  # noqa: SLF001
        owner = owners.setdefault(id(weight), site.name) if weight is not None else site.name
        found[site.name] = site if owner == site.name else attrs.evolve(site, tied_to=owner)
    return tuple(found.values())


def _input(model: nn.Module) -> list[Site]:
    get = getattr(model, "get_input_embeddings", None)
    table = get() if callable(get) else None
    if not isinstance(table, nn.Embedding):
        return []
    return [Site(INPUT, INPUT, table.num_embeddings, table.embedding_dim, cache=_cache_of(model), module=table)]


def _cache_of(model: Any) -> tuple[int, ...]:
    """Layers, key-value heads and the size of a head; empty where a model says nothing of them."""
    config: Any = model.config.get_text_config() if hasattr(model, "config") else None
    layers, heads = getattr(config, "num_hidden_layers", None), getattr(config, "num_attention_heads", None)
    if not layers or not heads:
        return ()
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    return layers, getattr(config, "num_key_value_heads", None) or heads, size


def _output_embeddings(model: nn.Module) -> nn.Module | None:
    get = getattr(model, "get_output_embeddings", None)
    head: nn.Module | None = get() if callable(get) else None
    return head


def _site(name: str, module: nn.Module, *, is_head: bool) -> Site | None:
    if isinstance(module, nn.Linear) and _is_linear(module):
        return Site(name, "linear", module.in_features, module.out_features, is_head, module=module)
    if isinstance(module, nn.Embedding) and _is_table(module):
        return Site(name, "embedding", module.num_embeddings, module.embedding_dim, module=module)
    if type(module).__name__ == "Conv1D" and isinstance(getattr(module, "weight", None), nn.Parameter):
        in_features, out_features = module.weight.shape  # type: ignore[misc]
        return Site(name, "conv1d", in_features, out_features, is_head, module=module)
    if any(parameter is not None for parameter in module._parameters.values()):  # noqa: SLF001
        return Site(name, "module", 0, 0, module=module)
    return None


def _is_linear(module: nn.Linear) -> bool:
    """Whether a class derived from ``nn.Linear`` is called as one; Llama 4's and Phi-MoE's routers return several things."""
    return tuple(inspect.signature(type(module).forward).parameters)[1:] in (("input",), ("x",))


def _is_table(module: nn.Embedding) -> bool:
    """Whether it looks up the ids that it is given; OPT's positions are counted from a mask, and others normalize the rows."""
    return type(module).forward is nn.Embedding.forward or hasattr(module, "embed_scale")


def frozen_weight(module: nn.Module) -> Tensor | None:
    """The weight ``(out_features, in_features)`` of a module that multiplies by it and adds a bias, and nothing more; else None.

    What such a module does may be computed elsewhere in its place: its weight is not trained, quantized, spread over devices or
    kept on another one, and no hook but a site's own sees what goes into it or comes out.
    """
    weight = module._parameters.get("weight")  # noqa: SLF001
    hooks = (module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)  # noqa: SLF001
    plain = type(module).forward is nn.Linear.forward and "forward" not in vars(module) and not any(hooks)
    if not plain or len(module._forward_hooks) > 1 or type(weight) is not nn.Parameter:  # noqa: SLF001
        return None
    return None if any(one.requires_grad for one in module.parameters()) else weight.detach()


def dequantize(module: Any) -> Tensor:
    """The weight of a bitsandbytes layer as ``(out_features, in_features)``, in the dtype that it was quantized from.

    8-bit weights are ``int8`` with a scale for each row, 127 times too large (LLM.int8, arXiv 2208.07339).
    """
    from bitsandbytes.functional import dequantize_4bit

    weight = module.weight
    state = getattr(weight, "quant_state", None)
    if state is not None:
        unpacked: Tensor = dequantize_4bit(weight.data, state)
        return unpacked
    scales = weight.SCB if weight.SCB is not None else module.state.SCB
    dense: Tensor = weight.data.float() * (scales.float() / 127.0)[:, None]
    return dense


def targeted(config: Any, sites: Sequence[Site], *, strict: bool = True) -> tuple[Site, ...]:
    """The sites that a configuration's ``target_modules`` choose.

    Where it has ``exclude_modules``, ``layers_to_transform`` and ``layers_pattern``, they choose among these as PEFT's do.

    Args:
        config: A method's configuration.
        sites: Every site of the base.
        strict: Whether each name must choose something, as a user's should; a file may list names of many architectures,
            and its tensors say which of them it means.

    Raises:
        TargetError: A name, or all of them together, chooses nothing; the message names what exists.
    """
    chosen = match(config.target_modules, sites, strict=strict)
    excluded = getattr(config, "exclude_modules", None)
    if excluded:
        without = {site.name for site in match(excluded, sites, strict=strict)}
        chosen = tuple(site for site in chosen if site.name not in without)
    chosen = _in_layers(config, chosen, strict=strict)
    if not chosen:
        raise TargetError("target module", str(config.target_modules), _last_names(sites))
    return chosen


def _in_layers(config: Any, chosen: tuple[Site, ...], *, strict: bool) -> tuple[Site, ...]:
    """Those in the layers that ``layers_to_transform`` numbers; a whole name is taken at its word, as PEFT does."""
    wanted = getattr(config, "layers_to_transform", None)
    if wanted is None or wanted == ():
        return chosen
    numbers = (wanted,) if isinstance(wanted, int) else wanted
    named = getattr(config, "layers_pattern", None) or ()
    patterns = (named,) if isinstance(named, str) else named
    number_of = {site.name: _layer_number(site.name, patterns) for site in chosen}
    for number in numbers if strict else ():
        if number not in number_of.values():
            raise TargetError("layer", str(number), {str(one) for one in number_of.values() if one is not None})
    whole = set() if isinstance(config.target_modules, str) else set(config.target_modules)
    return tuple(site for site in chosen if site.name in whole or number_of[site.name] in numbers)


def _layer_number(name: str, patterns: Sequence[str]) -> int | None:
    """The first number in a name that stands behind a list of layers; None where there is none."""
    expressions = [rf"(?:.*?\.)?(?:{one})\.(?P<number>\d+)\..*" for one in patterns]
    found = (_fitted(one, name) for one in expressions or [r".*?\.[^.]*\.(?P<number>\d+)\..*"])
    return next((int(one["number"]) for one in found if one), None)


def match(targets: str | Sequence[str], sites: Sequence[Site], *, strict: bool = True) -> tuple[Site, ...]:
    """The sites that ``targets`` mean, in the model's order.

    Args:
        targets: ``"all-linear"`` (every linear layer but the head); a regular expression that must fit a whole name; or
            names, each a site's whole name or the end of it behind a dot, as PEFT matches them.
        sites: Every site of the base.
        strict: Whether what chooses nothing is an error.

    Raises:
        TargetError: A name that no site has.
        ConfigError: A pattern that is not a regular expression, or that takes too long.
    """
    if targets == ALL_LINEAR:
        return tuple(site for site in sites if site.kind in LINEAR and not site.is_head)
    if isinstance(targets, str):
        chosen = tuple(site for site in sites if _fits(targets, site.name))
        if not chosen and regex.escape(targets) == targets:
            return match((targets,), sites, strict=strict)  # one plain name, written without brackets
        if not chosen and strict:
            raise TargetError("target module", targets, _last_names(sites))
        return chosen
    for target in targets if strict else ():
        if not any(_ends(site.name, target) for site in sites):
            raise TargetError("target module", target, _last_names(sites))
    return tuple(site for site in sites if any(_ends(site.name, target) for target in targets))


def shorten(chosen: Sequence[Site], sites: Sequence[Site]) -> tuple[str, ...]:
    """The shortest sorted list of names that :func:`match` takes for exactly ``chosen``: last names where they suffice."""
    wanted = {site.name for site in chosen}
    every, mine = Counter(_last(site.name) for site in sites), Counter(_last(site.name) for site in chosen)
    names = {_last(site.name) if every[_last(site.name)] == mine[_last(site.name)] else site.name for site in chosen}
    if {site.name for site in match(tuple(names), sites)} != wanted:
        return tuple(sorted(wanted))
    return tuple(sorted(names))


def pattern_value(patterns: dict[str, Any], name: str, default: Any) -> Any:
    """The value of the first pattern that a site's name ends with, as PEFT reads ``rank_pattern`` and ``alpha_pattern``.

    The first in alphabetical order: that is the order in which PEFT and we write them to a file.
    """
    end = time.monotonic() + PATTERN_SECONDS
    for pattern, value in sorted(patterns.items()):
        if _PLAIN.fullmatch(pattern):
            fits = _ends_like(name, pattern)
        else:
            fits = _fits(rf"(?:.*\.)?(?:{pattern})", name, end - time.monotonic())
        if fits:
            return value
    return default


def _ends_like(name: str, plain: str) -> bool:
    """What the regular expression would say, without compiling one for each of several thousand names."""
    start = len(name) - len(plain)
    same = start >= 0 and all(one in (other, ".") for one, other in zip(plain, name[start:], strict=True))
    return same and (not start or name[start - 1] == ".")


def _fits(pattern: str, name: str, seconds: float = PATTERN_SECONDS) -> bool:
    return _fitted(pattern, name, seconds) is not None


def _fitted(pattern: str, name: str, seconds: float = PATTERN_SECONDS) -> Any:
    """The match of a pattern with a whole name; None where it does not fit."""
    try:
        return regex.fullmatch(pattern, name, timeout=max(seconds, 1e-6))
    except (regex.error, TimeoutError) as error:
        raise ConfigError(
            "target modules do not fit", [f"pattern {pattern[:200]!r}: {error or 'takes too long'}"]
        ) from None


def _ends(name: str, target: str) -> bool:
    return name == target or name.endswith("." + target)


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _last_names(sites: Iterable[Site]) -> set[str]:
    return {_last(site.name) for site in sites} | {ALL_LINEAR}
