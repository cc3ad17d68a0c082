"""A base with shapes and no numbers: of its configuration alone, with as many of its blocks as are asked for."""

from __future__ import annotations

import copy
import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from adapterkit.errors import BaseLoadError, suggest
from adapterkit.loading import DTYPES
from adapterkit.quantization import FORMATS, stored_format
from adapterkit.sites import find_sites

from .standins import attend_by_stand_in, fuse, pack_linears

if TYPE_CHECKING:
    from collections.abc import Mapping

    from adapterkit.sites import Site

__all__ = ["BaseShape", "Skeleton", "depths", "skeleton"]

LAYERS = "num_hidden_layers"


@attrs.frozen(kw_only=True)
class BaseShape:
    """What a plan knows of a base.

    Attributes:
        name: What to call it.
        config: Its transformers configuration.
        dtype: What its weights are in where they are not quantized.
        stored: What the checkpoint is quantized in; empty where it is not.
        double_quant: Whether the scales of 4-bit weights are stored in 8 bits.
    """

    name: str
    config: Any
    dtype: torch.dtype
    stored: str = ""
    double_quant: bool = True

    @classmethod
    def read(cls, base: Any, *, dtype: str = "auto", on_cpu: bool = False) -> BaseShape:
        """Of a :class:`~adapterkit.Base`, loaded or not, a folder, a Hub id or a model object; no weight is read.

        Raises:
            BaseLoadError: There is no such model, or it is stored in a way that nothing is known of.
        """
        source = getattr(base, "source", None)
        location = base if source is None else source.location
        known = "" if source is None else source.quantize or ""
        if isinstance(location, torch.nn.Module):
            first: torch.nn.Parameter = next(location.parameters())
            model_dtype = getattr(location, "dtype", first.dtype)
            name = str(getattr(location, "name_or_path", "") or type(location).__name__)
            return cls(
                name=name, config=location.config, dtype=model_dtype, stored=_check(stored_format(location.config))
            )
        config = _config(str(location), None if source is None else source.revision)
        asked = dtype if source is None or dtype != "auto" else source.dtype
        return cls(
            name=str(location),
            config=config,
            dtype=_dtype(asked, config, str(location), on_cpu=on_cpu),
            stored=known or _check(stored_format(config)),
            double_quant=source is None or source.double_quant,
        )

    @property
    def layers(self) -> int:
        """How many blocks it has."""
        return int(getattr(self.config.get_text_config(), LAYERS))

    @property
    def vocabulary(self) -> int:
        """How many tokens it knows."""
        return int(self.config.get_text_config().vocab_size)


@attrs.frozen(eq=False, kw_only=True)
class Skeleton:
    """A base on tensors that have shapes and no numbers.

    Attributes:
        mode: Within it, and only there, its tensors may be used.
        model: The transformers model.
        sites: Where adapters may act.
        layers: How many blocks it has.
        quantize: What its linear layers but the head are stored in; empty where they are not quantized.
        takes_masks: Whether its attention takes a mask of the caller's.
        dtype: What its other weights are in.
        fused: Whether its norms and gated layers are one kernel each.
    """

    mode: FakeTensorMode
    model: Any
    sites: tuple[Site, ...]
    layers: int
    quantize: str
    takes_masks: bool
    dtype: torch.dtype
    fused: bool

    @property
    def tensors(self) -> list[torch.Tensor]:
        """All weights and buffers, each once."""
        return list({id(one): one for one in (*self.model.parameters(), *self.model.buffers())}.values())

    def bytes_by_dtype(self) -> Mapping[str, int]:
        """The memory of the weights, by what they are stored in."""
        found: dict[str, int] = {}
        for one in self.tensors:
            name = self.quantize if one.dtype in (torch.uint8, torch.int8) else str(one.dtype).removeprefix("torch.")
            found[name] = found.get(name, 0) + one.nbytes
        return found


def skeleton(
    shape: BaseShape, layers: int, quantize: str = "", *, double_quant: bool = True, fused: bool = False
) -> Skeleton:
    """The base with ``layers`` of its blocks.

    Args:
        shape: The base.
        layers: How many blocks.
        quantize: What to store its linear layers but the head in; empty leaves them as they are.
        double_quant: Whether the scales of 4-bit weights are stored in 8 bits.
        fused: Whether norms and gated layers are one kernel each.

    Raises:
        BaseLoadError: transformers has no causal language model of this kind.
    """
    from transformers import AutoModelForCausalLM

    mode = FakeTensorMode()
    with mode:
        config = with_layers(shape.config, layers)
        try:
            model = AutoModelForCausalLM.from_config(config, dtype=shape.dtype, trust_remote_code=False)
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise BaseLoadError(f"{shape.name!r} cannot be planned for: {str(error).splitlines()[0]}") from error
        model.eval().requires_grad_(requires_grad=False)
        if quantize:
            linears = [
                site.name for site in find_sites(model) if site.kind in ("linear", "conv1d") and not site.is_head
            ]
            pack_linears(model, linears, quantize, shape.dtype, double_quant=double_quant)
        takes_masks = model.config.get_text_config()._attn_implementation in ("sdpa", "eager")  # noqa: SLF001
        attend_by_stand_in(model)
        if fused:
            fuse(model)
        sites = find_sites(model)
    return Skeleton(
        mode=mode,
        model=model,
        sites=sites,
        layers=layers,
        quantize=quantize,
        takes_masks=takes_masks,
        dtype=shape.dtype,
        fused=fused,
    )


def with_layers(config: Any, layers: int) -> Any:
    """The configuration with fewer blocks; what it says of each block is cut to them."""
    config = copy.deepcopy(config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # what is quantized is decided by the plan
    text = config.get_text_config()
    before = getattr(text, LAYERS)
    if layers != before:
        for name, value in list(vars(text).items()):
            if isinstance(value, (list, tuple)) and len(value) == before:
                setattr(text, name, value[:layers])
        setattr(text, LAYERS, layers)
    return config


def depths(shape: BaseShape) -> tuple[int, ...]:
    """Numbers of blocks that are enough to know of all: two and four, or so many patterns of blocks; all where that is no less."""
    text, total = shape.config.get_text_config(), shape.layers
    kinds = list(getattr(text, "layer_types", None) or [""] * total)
    period = next(size for size in range(1, total + 1) if kinds[size:] == kinds[:-size])
    return (2 * period, 4 * period) if 4 * period < total else (total,)


def _config(location: str, revision: str | None) -> Any:
    from transformers import AutoConfig

    path = Path(location)
    if path.is_dir() and not (path / "config.json").is_file():
        raise BaseLoadError(f"{location!r} holds no model: it has no config.json")
    if not path.exists() and location.startswith((".", "/", "~")):
        beside = [str(one) for one in path.parent.iterdir()] if path.parent.is_dir() else []
        raise BaseLoadError(f"no folder {location!r}{suggest(location, beside)}")
    try:
        return AutoConfig.from_pretrained(location, revision=revision or "main", trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise BaseLoadError(f"the base {location!r} cannot be read: {str(error).strip().splitlines()[0]}") from error


def _check(stored: str) -> str:
    """What a checkpoint is quantized in, if a plan knows what that takes."""
    if stored and stored not in FORMATS:
        raise BaseLoadError(
            f"this base is stored in {stored!r}, and a plan knows {', '.join(FORMATS)} only: plan for the model that it was made of"
        )
    return stored


def _dtype(asked: str, config: Any, location: str, *, on_cpu: bool) -> torch.dtype:
    """What the base would be loaded in; see :class:`adapterkit.loading.Source`."""
    if asked != "auto":
        if asked not in DTYPES:
            raise BaseLoadError(f"dtype {asked!r} is not one of auto, {', '.join(DTYPES)}")
        return DTYPES[asked]
    if on_cpu:
        return torch.float32
    said = getattr(config, "dtype", None)
    if isinstance(said, torch.dtype):
        return said
    return _dtype_in_files(location)


def _dtype_in_files(location: str) -> torch.dtype:
    """The dtype of most weights, from the headers of their files.

    Raises:
        BaseLoadError: There are none to be read.
    """
    names = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
    counts = {names[name]: count for name, count in _counts(location).items() if name in names}
    if not counts:
        raise BaseLoadError(
            f"{location!r} says nowhere what its weights are in: config.json has no dtype, and no header of a safetensors file can "
            "be read; give one, such as dtype='bfloat16'"
        )
    return max(counts, key=lambda dtype: counts[dtype])


def _counts(location: str) -> dict[str, int]:
    """How many numbers there are of each dtype."""
    from huggingface_hub import get_safetensors_metadata
    from huggingface_hub.errors import HfHubHTTPError, NotASafetensorsRepoError
    from safetensors import SafetensorError, safe_open

    counts: Counter[str] = Counter()
    try:
        if not Path(location).is_dir():
            return {str(name): count for name, count in get_safetensors_metadata(location).parameter_count.items()}
        for file in sorted(Path(location).glob("*.safetensors")):
            with safe_open(file, "pt") as opened:
                for name in opened.keys():  # noqa: SIM118 - it is no mapping
                    part = opened.get_slice(name)
                    counts[part.get_dtype()] += math.prod(part.get_shape())
    except (OSError, ValueError, SafetensorError, HfHubHTTPError, NotASafetensorsRepoError):
        return {}
    return counts
