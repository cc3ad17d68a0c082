"""Loads a base: a folder, a Hub id, or a transformers model that the caller has loaded."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import torch

from .errors import BaseLoadError, suggest
from .quantization import check_format, hush, keep_bits, settings, stored_format, use_dtype

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import nn

__all__ = [
    "DTYPES",
    "LoadedBase",
    "Source",
    "check_location",
    "default_device",
    "first_line",
    "format_in_files",
    "load_base",
    "progress_on_a_terminal",
    "set_own_device",
]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@attrs.frozen(kw_only=True)
class Source:
    """Where a base comes from, and how it is to be loaded.

    Attributes:
        location: A folder, a Hub id, or a model object.
        revision: A Hub commit, tag or branch; the commit that it names is what adapters remember.
        dtype: ``"float32"``, ``"bfloat16"``, ``"float16"``, or ``"auto"``: the checkpoint's own on an accelerator, and
            float32 on a CPU, where half precision is exact on few machines and slow on most.
        device: Such as ``"cuda:1"``; ``"auto"`` is the first accelerator, else the CPU; each of several processes that share a
            run has its own.
        tokenizer: A tokenizer to use instead of the one beside the model.
        quantize: ``"nf4"``, ``"fp4"`` or ``"int8"``: what the linear layers but the head are stored in.
        double_quant: Whether the scales of 4-bit weights are themselves stored in 8 bits.
        on_host: Whether the weights are to stay in the host's memory for now: they go to several accelerators, in pieces.
    """

    location: Any
    revision: str | None = None
    dtype: str = "auto"
    device: str = "auto"
    tokenizer: Any = None
    quantize: str | None = None
    double_quant: bool = True
    on_host: bool = False

    @property
    def is_object(self) -> bool:
        """Whether the caller has loaded it."""
        return not isinstance(self.location, (str, os.PathLike))

    @property
    def name(self) -> str:
        """What to call it."""
        if not self.is_object:
            return str(self.location)
        return str(getattr(self.location, "name_or_path", "") or type(self.location).__name__)


@attrs.frozen(kw_only=True)
class LoadedBase:
    """A frozen model in evaluation mode, its tokenizer, if it has one, and what freezing changed."""

    model: Any
    tokenizer: Any
    commit: str
    trainable: tuple[Any, ...] = ()
    training: tuple[Any, ...] = ()

    def thaw(self) -> None:
        """Make trainable, and put into training mode, what was so before."""
        for parameter in self.trainable:
            parameter.requires_grad_(requires_grad=True)
        for module in self.training:
            module.training = True


def load_base(source: Source) -> LoadedBase:
    """Load and freeze.

    Raises:
        BaseLoadError: There is no such model, or it cannot be loaded; says what was tried.
    """
    hush()
    model, tokenizer = (_check_object(source), source.tokenizer) if source.is_object else _load_files(source)
    loaded = LoadedBase(
        model=model,
        tokenizer=tokenizer,
        commit=str(getattr(model.config, "_commit_hash", None) or ""),
        # of our own model nothing is ever thawed; and what is listed here could not be given up when it is divided
        trainable=tuple(one for one in model.parameters() if one.requires_grad and source.is_object),
        training=tuple(one for one in model.modules() if one.training and source.is_object),
    )
    keep_bits(model)
    model.requires_grad_(requires_grad=False)
    model.eval()
    return loaded


def _load_files(source: Source) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    location = str(source.location)
    check_location(location)
    if source.quantize is not None:
        check_format(source.quantize)
    device = _device(source.device)
    dtype = _dtype(source.dtype, device)
    revision = source.revision or "main"
    try:
        with progress_on_a_terminal(), _whole():
            # never the adapter that a folder may hold beside its model: adapters come in through the trusted loader alone
            model, report = AutoModelForCausalLM.from_pretrained(
                location,
                revision=revision,
                dtype=dtype,
                # a quantized model is made where it is to be, and cannot be moved
                device_map={"": "cpu" if source.on_host else device},
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                **_quantization(source),
            )
            tokenizer = source.tokenizer or AutoTokenizer.from_pretrained(
                location, revision=revision, trust_remote_code=False
            )
    except BaseLoadError:
        raise
    # no such model, weights of other shapes, no memory; of a strange config.json, whatever transformers' code runs into
    except Exception as error:
        raise BaseLoadError(f"the base {location!r} cannot be loaded: {first_line(error)}") from error
    _check_complete(location, report["missing_keys"])
    if source.quantize is not None:
        use_dtype(model, model.dtype)
    return model, tokenizer


def _quantization(source: Source) -> dict[str, Any]:
    """What ``from_pretrained`` is told of quantization.

    Raises:
        BaseLoadError: The checkpoint is quantized already, and would be loaded as it is.
    """
    if source.quantize is None:
        return {}
    stored = format_in_files(source)
    if stored:
        raise BaseLoadError(
            f"{source.name!r} is stored in {stored}, and quantize={source.quantize!r} would do nothing: leave it out, or use the "
            "model that it was made of"
        )
    return {"quantization_config": settings(source.quantize, double_quant=source.double_quant)}


def format_in_files(source: Source) -> str:
    """What a folder or a Hub id is quantized in as it is stored; empty where it is not. No weight is read."""
    from transformers import AutoConfig

    revision = source.revision or "main"
    return stored_format(AutoConfig.from_pretrained(str(source.location), revision=revision, trust_remote_code=False))


@contextlib.contextmanager
def progress_on_a_terminal() -> Iterator[None]:
    """Within this block, transformers draws its progress bars on a terminal only."""
    from transformers.utils import logging

    if (sys.stderr.isatty() and not _local_rank()) or not logging.is_progress_bar_enabled():
        yield
        return
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()


@contextlib.contextmanager
def _whole() -> Iterator[None]:
    """Within this block, transformers loads a base in every process, where FSDP's settings would have it loaded in the first."""
    name = "FSDP_CPU_RAM_EFFICIENT_LOADING"
    before = os.environ.get(name)
    if before is not None:
        os.environ[name] = "false"
    try:
        yield
    finally:
        if before is not None:
            os.environ[name] = before


def _check_complete(location: str, missing: Iterable[str]) -> None:
    """Refuse a model that transformers has filled up with random weights; it only warns."""
    names = sorted(missing)
    if names:
        raise BaseLoadError(
            f"{location!r} lacks {len(names)} of the weights that its config.json asks for, such as {names[0]!r}: they would "
            "be random"
        )


def check_location(location: str) -> None:
    """Refuse what is meant as a folder and holds no model.

    Raises:
        BaseLoadError: Says what is there instead.
    """
    path = Path(location)
    if (path / "adapter_config.json").is_file():
        raise BaseLoadError(
            f"{location!r} holds an adapter, not a base; load its base and then Base.load({location!r})"
        )
    if path.is_dir() and not (path / "config.json").is_file():
        raise BaseLoadError(f"{location!r} holds no model: it has no config.json")
    if not path.exists() and _is_meant_as_a_path(location):
        beside = [str(one) for one in path.parent.iterdir()] if path.parent.is_dir() else []
        raise BaseLoadError(
            f"no folder {location!r}{suggest(location, beside) or ';'} a base is a folder, a Hub id such as 'org/model', "
            "or a model object"
        )


def _is_meant_as_a_path(location: str) -> bool:
    """A Hub id has one slash at most, and its first part is no folder here."""
    first, _, rest = location.partition("/")
    return location.startswith((".", "/", "~")) or "/" in rest or (bool(rest) and Path(first).is_dir())


def _check_object(source: Source) -> nn.Module:
    model: nn.Module = source.location
    if not isinstance(model, torch.nn.Module) or not hasattr(model, "config"):
        raise BaseLoadError(f"a base is a folder, a Hub id or a transformers model, not {type(model).__name__}")
    if hasattr(model, "peft_config"):
        raise BaseLoadError(
            "this model has PEFT adapters in it; pass the model that they were put into, after .unload()"
        )
    asked = {name: getattr(source, name) for name in ("revision", "dtype", "device", "quantize")}
    given = [f"{name}={value!r}" for name, value in asked.items() if value not in (None, "auto")]
    if given:
        raise BaseLoadError(f"a model object is used as it is, and {', '.join(given)} would do nothing: leave it out")
    return model


def default_device() -> torch.device:
    """What ``device="auto"`` is: the first accelerator, this process's own where several share a run, else the CPU."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None or os.environ.get("ACCELERATE_USE_CPU", "false").lower() == "true":
        return torch.device("cpu")
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return torch.device(accelerator.type, _local_rank() % torch.accelerator.device_count()) if several else accelerator


def set_own_device() -> None:
    """Make this process's accelerator the one that torch uses where none is named."""
    device = default_device()
    if device.index is not None:
        torch.get_device_module(device).set_device(device)


def _local_rank() -> int:
    """Which of the processes of this machine that share a run this is, as launchers say it."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def _device(device: str) -> torch.device:
    if device == "auto":
        return default_device()
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built for the device
        raise BaseLoadError(f"device {device!r} is not there: {first_line(error)}") from error
    asked, own = torch.device(device), default_device()
    return own if asked.index is None and asked.type == own.type else asked


def _dtype(dtype: str, device: torch.device) -> Any:
    if dtype == "auto":
        return torch.float32 if device.type == "cpu" else "auto"
    if dtype not in DTYPES:
        raise BaseLoadError(f"dtype {dtype!r} is not one of auto, {', '.join(DTYPES)}")
    return DTYPES[dtype]


def first_line(error: Exception) -> str:
    """The first line of what an error says, with the next one where it only leads to it; its name where it says nothing."""
    text = repr(error) if isinstance(error, KeyError) else str(error)  # which says nothing but the key
    lines = [line.strip() for line in text.strip().splitlines()] or [type(error).__name__]
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
