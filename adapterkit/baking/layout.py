"""A base on disk as a model without numbers: which stored tensor is which parameter, and a site's weights while they are needed."""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import nn

from adapterkit.checkpoint import Checkpoint, model_without_weights
from adapterkit.errors import BaseLoadError
from adapterkit.fingerprint import fingerprint
from adapterkit.loading import DTYPES
from adapterkit.sites import find_sites

from .casting import dtype_name
from .shards import FLOATS, Stored, headers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor

    from adapterkit.sites import Site

__all__ = ["Layout", "NotPlainError", "main_dtype"]


def main_dtype(checkpoint: Checkpoint) -> str:
    """What most of the weights are stored in, by its name; float32 where that is none that a base is loaded in."""
    sizes: Counter[str] = Counter()
    for one in headers(checkpoint.files).values():
        sizes[dtype_name(FLOATS[one.dtype]) if one.dtype in FLOATS else ""] += one.size
    most = max(sorted(sizes), key=lambda name: sizes[name])
    return most if most in DTYPES else "float32"


class NotPlainError(Exception):
    """The stored tensors are not the model's own parameters; says why."""


@attrs.frozen(eq=False)
class Layout:
    """A checkpoint and the model that it is of, on the meta device.

    Attributes:
        checkpoint: The stored tensors.
        stored: What each is stored as, by its key, in the order of the files.
        model: The transformers model, without numbers.
        sites: Where adapters may act.
        keys: What the checkpoint calls each parameter, by each name that the model has for it; none for one that is converted when
            it is loaded, as the experts of a mixture are, which are stored one by one.
        left_out: Keys that hold the weight of another key once more.
    """

    checkpoint: Checkpoint
    stored: Mapping[str, Stored]
    model: Any
    sites: tuple[Site, ...]
    keys: Mapping[str, str]
    left_out: frozenset[str]

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Layout:
        """Find every parameter in the checkpoint, as transformers would.

        Raises:
            NotPlainError: One is missing, of another shape, or there twice.
        """
        try:
            model = model_without_weights(checkpoint.config)
        except BaseLoadError as error:
            if not isinstance(error.__cause__, RuntimeError):  # torch's, of what it cannot do on the meta device
                raise
            raise NotPlainError(f"the model cannot be made without its weights: {error.__cause__}") from error
        model.requires_grad_(requires_grad=False)
        stored = headers(checkpoint.files)
        plain, converted = _names(model, stored)
        keys: dict[str, str] = {}
        left_out: set[str] = set()
        for group in _shared(model):
            there = [name for name in group if name in plain]
            if not there and not set(group) & converted:
                raise NotPlainError(f"{group[0]!r} is not in its files")
            for name in there[1:]:
                if torch.equal(checkpoint.read(plain[there[0]]), checkpoint.read(plain[name])):
                    left_out.add(plain[name])
                else:  # as transformers does, whatever the configuration says
                    _untie(model, name)
                    keys[name] = plain[name]
            keys.update({name: plain[there[0]] for name in group if there and name not in keys})
        return cls(checkpoint, stored, model, find_sites(model), keys, frozenset(left_out))

    def fingerprint(self, dtype: torch.dtype | None = None) -> str:
        """What :func:`adapterkit.fingerprint.fingerprint` says of the model once it is loaded in ``dtype``.

        Where tensors are converted when they are loaded, the second half is left open, as for a quantized base.
        """

        def read(name: str) -> Tensor:
            stored = self.checkpoint.read(self.keys[name])
            return stored if dtype is None else stored.to(dtype)

        return fingerprint(self.model, read, {name for name, _ in self.model.named_parameters()} - self.keys.keys())

    @contextlib.contextmanager
    def weights_of(self, sites: list[Site]) -> Iterator[None]:
        """Within this block, sites have their weights; those that share one have the same."""
        before = [(site.module, dict(site.parameters)) for site in sites]
        made: dict[str, nn.Parameter] = {}
        try:
            for site in sites:
                for name in site.parameters:
                    key = self.keys[f"{site.name}.{name}"]
                    if key not in made:
                        made[key] = nn.Parameter(self.checkpoint.read(key), requires_grad=False)
                    site.module._parameters[name] = made[key]  # noqa: SLF001
            yield
        finally:
            for module, parameters in before:
                module._parameters.update(parameters)  # noqa: SLF001


def _names(model: Any, stored: Mapping[str, Stored]) -> tuple[dict[str, str], set[str]]:
    """The keys of parameters that are stored as they are, by the model's names, and the names of those that are converted.

    Raises:
        NotPlainError: Something that the model needs is not there, not of its shape, or there twice.
    """
    state = model.state_dict()
    plain: dict[str, str] = {}
    converted: set[str] = set()
    for key, (name, is_converted) in _renamed(model, state, sorted(stored)).items():
        if is_converted:
            converted.add(name)
        elif name in plain:
            raise NotPlainError(f"{key!r} and {plain[name]!r} are both {name!r}")
        elif name in state and tuple(state[name].shape) != stored[key].shape:
            raise NotPlainError(f"{key!r} is {stored[key].shape}, and {tuple(state[name].shape)} in the model")
        elif name in state:
            plain[name] = key
    return plain, converted


def _renamed(model: Any, state: Mapping[str, Tensor], keys: list[str]) -> dict[str, tuple[str, bool]]:
    """What transformers takes each stored tensor for, and whether it computes something of it.

    Raises:
        NotPlainError: This version of transformers does not say.
    """
    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

        known = get_model_conversion_mapping(model)
        renamings = [one for one in known if isinstance(one, WeightRenaming)]
        converters = [one for one in known if isinstance(one, WeightConverter)]
        found: dict[str, tuple[str, bool]] = {}
        for key in keys:
            name, pattern = rename_source_key(key, renamings, converters, model.base_model_prefix, state)
            if name not in state and key in state:
                name, pattern = rename_source_key(key, [], [], model.base_model_prefix, state)
            found[key] = (name, pattern is not None)
    except (ImportError, TypeError, ValueError) as error:
        raise NotPlainError(
            f"this version of transformers does not say what it makes of stored tensors: {error}"
        ) from error
    return found


def _shared(model: nn.Module) -> list[list[str]]:
    """The names of each parameter; several where layers share it."""
    groups: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        groups.setdefault(id(parameter), []).append(name)
    return list(groups.values())


def _untie(model: nn.Module, name: str) -> None:
    module, _, last = name.rpartition(".")
    parameter = model.get_parameter(name)
    setattr(model.get_submodule(module), last, nn.Parameter(torch.empty_like(parameter), requires_grad=False))
