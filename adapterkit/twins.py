"""The base that a method trains on, where it wants one that is quantized."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from .errors import ConfigError
from .fingerprint import same_base
from .loading import format_in_files
from .quantization import bytes_of, check_format

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .shared import SharedModel

__all__ = ["Twins"]

logger = logging.getLogger("adapterkit")
B = TypeVar("B", bound="SharedModel")


class Twins:
    """Quantized twins of one base, each loaded when it is first needed and kept for the next run."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, bool], Any] = {}

    def clear(self) -> None:
        """Give up their memory."""
        self._made.clear()

    @contextlib.contextmanager
    def undone_on_failure(self, base: SharedModel) -> Iterator[None]:
        """Within this block, a base that :meth:`find` has made a quantized one becomes unloaded again if the block fails."""
        source = base.source
        try:
            yield
        except BaseException:
            if base.source is not source:
                base.unload_model(source)
            raise

    def find(self, base: B, quantize: str, *, double_quant: bool, loaded: bool) -> B:
        """``base`` itself where it is, or can still be loaded, in this format; else its twin. See :meth:`Base.quantized_as`."""
        check_format(quantize)
        if not loaded and not base.source.is_object and not (base.source.quantize or format_in_files(base.source)):
            base.source = attrs.evolve(base.source, quantize=quantize, double_quant=double_quant)
        if base.quantized == quantize:
            return base
        _check_can_be_loaded_anew(base, quantize)
        key = (quantize, double_quant)
        if key not in self._made:
            self._made[key] = _make(base, quantize, double_quant=double_quant)
        twin: B = self._made[key]
        return twin


def _check_can_be_loaded_anew(base: SharedModel, quantize: str) -> None:
    reason = ""
    if base.quantized:
        reason = f"is in {base.quantized}: use that, or load it unquantized"
    elif base.source.is_object:
        reason = f"is a model object that is not quantized: give a folder or a Hub id, as in Base(location, quantize={quantize!r})"
    if reason:
        raise ConfigError("the base does not fit", [f"quantize={quantize!r} is asked for, and the base {reason}"])


def _make(base: B, quantize: str, *, double_quant: bool) -> B:
    source = base.source
    twin = type(base)(
        source.location,
        revision=base.reference.revision or source.revision,
        dtype=source.dtype,
        device=source.device,
        tokenizer=base.tokenizer,
        registry=base.registry,
        quantize=quantize,
        double_quant=double_quant,
    )
    if not same_base(base.reference.fingerprint, twin.reference.fingerprint):
        raise ConfigError("the base does not fit", [f"{source.name!r} has changed since it was loaded: load it again"])
    logger.warning(
        "%s is loaded unquantized: its twin in %s was loaded to train on, and takes %.2f GiB more until detach(). "
        "Base(%r, quantize=%r) takes no more than that",
        source.name,
        quantize,
        bytes_of(twin.model) / 2**30,
        source.name,
        quantize,
    )
    return twin
