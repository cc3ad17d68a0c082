"""What differs between a base and what was tuned: parameter by parameter, and read when it is asked for."""

from __future__ import annotations

import functools
import math
import re
from typing import TYPE_CHECKING, Any

import attrs
import torch

from adapterkit.artifact.fit import check_tensors
from adapterkit.effects import Dense, LowRank, Scale
from adapterkit.errors import PluginError, SelectionError
from adapterkit.resident import effects_of, expected_tensors
from adapterkit.sites import INPUT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from torch import Tensor

    from adapterkit.adapter import Adapter
    from adapterkit.checkpoint import Checkpoint
    from adapterkit.effects import Effect
    from adapterkit.registry import Registry
    from adapterkit.sites import Site

__all__ = ["Change", "Weights", "changes_of_adapter", "changes_of_model", "differing_settings"]

SHOWN = 4
OF_WEIGHTS = (
    "depends on the base's weights: merge it alone with a rank and base=Base(folder), or bake it into a model and extract "
    "from that"
)
ELEMENTS_AT_ONCE = 1 << 24
TRANSPOSED = ("conv1d", "embedding")
FLOATS = frozenset((torch.float64, torch.float32, torch.float16, torch.bfloat16))
"""What weights are computed with."""
OF_THE_FILE = frozenset(
    (
        *("_attn_implementation", "_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version"),
        *("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "id2label", "label2id"),
        *("initializer_range", "problem_type", "tie_word_embeddings", "use_cache", "output_attentions"),
        *("output_hidden_states", "return_dict", "vocab_size"),
    )
)
"""Settings that are of no matter to what the same weights answer, and those that the weights themselves show."""
DROPOUT = re.compile(r".*(dropout|pdrop)")


@attrs.frozen(eq=False)
class Change:
    """A parameter that was tuned.

    Attributes:
        name: Its name in the model.
        site: The site that it belongs to; None for what the model's files hold otherwise than the model, such as single experts.
        parameter: Its name in the site's module.
        shape: As it is stored.
        is_shared: Whether it is another site's weight too, which is a change of its own.
        read: Gives the difference in float32, as it is stored.
        size: Gives how large the difference is beside the base's parameter, by Frobenius norms; None where that is
            not known, or zero.
    """

    name: str
    site: Site | None
    parameter: str
    shape: tuple[int, ...]
    is_shared: bool
    read: Callable[[], Tensor]
    size: Callable[[], float | None]

    @property
    def count(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)

    def of_weight(self) -> Tensor:
        """The difference of a site's weight, ``(out_features, in_features)`` in float32.

        Raises:
            SelectionError: It holds what is no number.
        """
        difference = self.read()
        if not torch.isfinite(difference.sum()):
            raise SelectionError(f"{self.name!r} holds numbers that are not finite")
        transposed = self.site is not None and self.site.kind in TRANSPOSED
        return difference.T.contiguous() if transposed else difference


@attrs.frozen(eq=False, slots=False)
class Weights:
    """The parameters of a model by the names that it has for them, read from its files.

    Where the model has one weight at two places, the files have it once.
    """

    checkpoint: Checkpoint
    model: Any
    sites: Sequence[Site]

    @functools.cached_property
    def stored(self) -> dict[str, str]:
        """What the files call each tensor, by the model's name for it; by the files' own where the model has none."""
        known = dict(self.model.named_parameters(remove_duplicate=False))
        prefix = f"{self.model.base_model_prefix}."
        ignored = self.model._keys_to_ignore_on_load_unexpected or ()  # noqa: SLF001 - transformers has no public name for it
        found: dict[str, str] = {}
        for name in self.checkpoint.files:
            candidates = (name, prefix + name, name.removeprefix(prefix))
            mine = next((one for one in candidates if one in known), name)
            if mine in known or not any(re.search(one, name) for one in ignored):
                found[mine] = name
        return found

    @functools.cached_property
    def shared(self) -> dict[str, str]:
        """The parameter that another one is, by its name."""
        return {f"{site.name}.weight": f"{site.tied_to}.weight" for site in self.sites if site.tied_to}

    def __contains__(self, name: str) -> bool:
        return name in self.stored or self.shared.get(name) in self.stored

    def __getitem__(self, name: str) -> Tensor:
        return self.checkpoint.read(self.stored[name if name in self.stored else self.shared[name]])


def changes_of_model(base: Weights, tuned: Weights, advance: Callable[[], None]) -> list[Change]:
    """The parameters in which two models differ, in the base's order.

    Args:
        base: The base.
        tuned: What became of it.
        advance: Called once for each of the base's parameters.

    Raises:
        SelectionError: One has a parameter that the other has not, or in another shape; or one that differs is stored in what
            is not computed with, such as integers.
    """
    places = {
        f"{site.name}.{name}": (site, name) for site in base.sites if site.name != INPUT for name in site.parameters
    }
    unplaced = sorted((base.stored.keys() | tuned.stored.keys()) - places.keys())
    _check_complete(base, tuned, places, unplaced)
    changes = []
    for name in (*places, *unplaced):
        advance()
        if name not in base:  # its parts lie in the files by other names, and come last
            continue
        site, parameter = places.get(name, (None, ""))
        theirs, mine = base[name], tuned[name]
        if theirs.shape != mine.shape:
            raise SelectionError(
                f"{name!r} is {tuple(theirs.shape)} in the base and {tuple(mine.shape)} in {str(tuned.checkpoint.folder)!r}: "
                "only models of the same sizes and vocabulary have a difference"
            )
        if _same(theirs, mine):
            continue
        for model, dtype in ((base, theirs.dtype), (tuned, mine.dtype)):
            if dtype not in FLOATS:
                raise SelectionError(
                    f"{name!r} is stored in {str(dtype).removeprefix('torch.')} in {str(model.checkpoint.folder)!r}: give the "
                    "model that it was made of"
                )
        read = functools.partial(_difference, base, tuned, name)
        size = functools.partial(_relative, base, tuned, name)
        is_shared = name not in base.stored and name not in tuned.stored
        changes.append(Change(name, site, parameter, tuple(mine.shape), is_shared, read, size))
    return changes


def changes_of_adapter(registry: Registry, adapter: Adapter, sites: Sequence[Site]) -> list[Change]:
    """The parameters that an adapter changes, without the base's weights.

    Args:
        registry: Where its method is looked up.
        adapter: An adapter.
        sites: The base's, on the meta device.

    Raises:
        SelectionError: It does something else than to add to weights, or what it does depends on the base's.
        ArtifactError: It does not fit the base.
    """
    method = registry.method(adapter.method)
    check_tensors(adapter.tensors, expected_tensors(registry, method, adapter.config, sites))
    try:
        effects = effects_of(registry, adapter, sites)
    except PluginError:
        raise
    except RuntimeError as error:  # torch's: a number was asked for, and the meta device has none
        raise SelectionError(f"what the {adapter.method} adapter does {OF_WEIGHTS}") from error
    changes = []
    for site in sites:
        owner = site.name if site.name in effects else site.tied_to
        for parameter, parts in _by_parameter(adapter, site, effects.get(owner, ())).items():
            if parameter != "weight" and owner != site.name:
                continue
            read = functools.partial(_sum, parts, is_transposed=site.kind in TRANSPOSED and parameter == "weight")
            if not any(one.any() for part in parts for one in _tensors(part)):
                continue
            shape = tuple(site.parameters[parameter].shape)
            name = f"{site.name}.{parameter}"
            changes.append(Change(name, site, parameter, shape, owner != site.name, read, lambda: None))
    return changes


def differing_settings(base: Any, tuned: Any) -> list[str]:
    """The settings of two configurations that differ, as ``"rope_theta: 10000.0, and 500000.0 in what was tuned"``.

    Raises:
        SelectionError: They are of different architectures.
    """
    if base.model_type != tuned.model_type:
        raise SelectionError(
            f"the base is a {base.model_type} and what was tuned a {tuned.model_type}: only models of one architecture have a "
            "difference"
        )
    mine, theirs = tuned.to_dict(), base.to_dict()
    names = sorted((mine.keys() | theirs.keys()) - OF_THE_FILE)
    return [
        f"{name}: {theirs.get(name)!r:.60}, and {mine.get(name)!r:.60} in what was tuned"
        for name in names
        if mine.get(name) != theirs.get(name) and not DROPOUT.fullmatch(name)
    ]


def _check_complete(base: Weights, tuned: Weights, places: Mapping[str, Any], unplaced: Iterable[str]) -> None:
    """Refuse what one of the two models lacks, and what both lack with nothing in its place."""
    for one, other in ((base, tuned), (tuned, base)):
        lacking = [name for name in (*places, *unplaced) if name not in one and name in other]
        if lacking:
            more = f", {', '.join(lacking[1:SHOWN])}" if lacking[1:] else ""
            raise SelectionError(
                f"{str(one.checkpoint.folder)!r} lacks {len(lacking)} of the weights that {str(other.checkpoint.folder)!r} has: "
                f"{lacking[0]}{more}"
            )
    lacking = [name for name in places if name not in base]
    if lacking and not tuple(unplaced):
        raise SelectionError(f"{str(base.checkpoint.folder)!r} lacks {len(lacking)} of its weights: {lacking[0]}")


def _narrowed(theirs: Tensor, mine: Tensor) -> tuple[Tensor, Tensor]:
    """Both in the dtype of the two that has fewer bits: what rounding has changed was not tuned."""
    if theirs.dtype == mine.dtype:
        return theirs, mine
    narrow = mine.dtype if mine.dtype.itemsize <= theirs.dtype.itemsize else theirs.dtype
    return theirs.to(narrow), mine.to(narrow)


def _same(theirs: Tensor, mine: Tensor) -> bool:
    if {theirs.dtype, mine.dtype} <= FLOATS:
        return torch.equal(*_narrowed(theirs, mine))
    # torch does not compare every type
    return theirs.dtype == mine.dtype and torch.equal(*(one.reshape(-1).view(torch.uint8) for one in (theirs, mine)))


def _difference(base: Weights, tuned: Weights, name: str) -> Tensor:
    theirs, mine = _narrowed(base[name], tuned[name])
    return mine.float() - theirs.float()


def _relative(base: Weights, tuned: Weights, name: str) -> float | None:
    """In pieces, since a table of embeddings may be as large as all else that is in memory."""
    pieces = 1 + base[name].numel() // ELEMENTS_AT_ONCE
    theirs, mine = (one.reshape(-1).tensor_split(pieces) for one in _narrowed(base[name], tuned[name]))
    changed, whole = 0.0, 0.0
    for one, other in zip(theirs, mine, strict=True):
        changed += float((other.float() - one.float()).square().sum(dtype=torch.float64))
        whole += float(one.float().square().sum(dtype=torch.float64))
    return math.sqrt(changed / whole) if whole else None


def _by_parameter(adapter: Adapter, site: Site, effects: Sequence[Effect]) -> dict[str, list[Dense | LowRank]]:
    found: dict[str, list[Dense | LowRank]] = {}
    for effect in effects:
        if isinstance(effect, Scale) or any(one.is_meta for one in _tensors(effect)):
            what = f"the {adapter.method} adapter has a {type(effect).__name__} at {site.name!r}, which"
            raise SelectionError(f"{what} {OF_WEIGHTS}")
        if not isinstance(effect, (Dense, LowRank)):
            raise SelectionError(
                f"the {adapter.method} adapter has a {type(effect).__name__} at {site.name!r}, which is no sum with a weight"
            )
        found.setdefault("weight" if isinstance(effect, LowRank) else effect.parameter, []).append(effect)
    return found


def _tensors(effect: Effect) -> tuple[Tensor, ...]:
    return (effect.delta,) if isinstance(effect, Dense) else (effect.up,) if isinstance(effect, LowRank) else ()


def _sum(parts: Sequence[Dense | LowRank], *, is_transposed: bool) -> Tensor:
    deltas = [part.delta.float() if isinstance(part, Dense) else part.delta() for part in parts]
    total: Tensor = torch.stack(deltas).sum(0) if len(deltas) > 1 else deltas[0]
    return total.T if is_transposed else total
