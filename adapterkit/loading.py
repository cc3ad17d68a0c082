"""Loads a base: a folder, a Hub id, or a transformers model that the caller has loaded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import torch

from .errors import BaseLoadError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["DTYPES", "LoadedBase", "Source", "load_base"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@attrs.frozen(kw_only=True)
class Source:
    """Where a base comes from, and how it is to be loaded.

    Attributes:
        location: A folder, a Hub id, or a model object.
        revision: A Hub commit, tag or branch; the commit that it names is what adapters remember.
        dtype: ``"float32"``, ``"bfloat16"``, ``"float16"``, or ``"auto"``: the checkpoint's own on an accelerator, and
            float32 on a CPU, where half precision is exact on few machines and slow on most.
        device: Such as ``"cuda:1"``; ``"auto"`` is the first accelerator, else the CPU.
        tokenizer: A tokenizer to use instead of the one beside the model.
    """

    location: Any
    revision: str | None = None
    dtype: str = "auto"
    device: str = "auto"
    tokenizer: Any = None

    @property
    def name(self) -> str:
        """What to call it."""
        if isinstance(self.location, (str, os.PathLike)):
            return str(self.location)
        return str(getattr(self.location, "name_or_path", "") or type(self.location).__name__)


@attrs.frozen(kw_only=True)
class LoadedBase:
    """A frozen model in evaluation mode, and its tokenizer, if it has one."""

    model: Any
    tokenizer: Any
    commit: str


def load_base(source: Source) -> LoadedBase:
    """Load and freeze.

    Raises:
        BaseLoadError: There is no such model, or it cannot be loaded; says what was tried.
    """
    if isinstance(source.location, (str, os.PathLike)):
        model, tokenizer = _load_files(source)
    else:
        model, tokenizer = _check_object(source.location), source.tokenizer
    model.requires_grad_(requires_grad=False)
    model.eval()
    return LoadedBase(model=model, tokenizer=tokenizer, commit=str(getattr(model.config, "_commit_hash", None) or ""))


def _load_files(source: Source) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    location = str(source.location)
    _check_location(location)
    device = _device(source.device)
    dtype = _dtype(source.dtype, device)
    try:
        # never the adapter that a folder may hold beside its model: adapters come in through the trusted loader alone
        model = AutoModelForCausalLM.from_pretrained(
            location, revision=source.revision or "main", dtype=dtype, use_safetensors=True, trust_remote_code=False
        )
        tokenizer = source.tokenizer or AutoTokenizer.from_pretrained(
            location, revision=source.revision or "main", trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise BaseLoadError(f"the base {location!r} cannot be loaded: {_last_line(error)}") from error
    return model.to(device), tokenizer


def _check_location(location: str) -> None:
    path = Path(location)
    if (path / "adapter_config.json").is_file():
        raise BaseLoadError(
            f"{location!r} holds an adapter, not a base; load its base and then Base.load({location!r})"
        )
    if path.is_dir() and not (path / "config.json").is_file():
        raise BaseLoadError(f"{location!r} holds no model: it has no config.json")
    if not path.exists() and (location.startswith((".", "/", "~")) or location.count("/") > 1):
        raise BaseLoadError(
            f"no folder {location!r}; a base is a folder, a Hub id such as 'org/model', or a model object"
        )


def _check_object(model: nn.Module) -> nn.Module:
    if not isinstance(model, torch.nn.Module) or not hasattr(model, "config"):
        raise BaseLoadError(f"a base is a folder, a Hub id or a transformers model, not {type(model).__name__}")
    if hasattr(model, "peft_config"):
        raise BaseLoadError(
            "this model has PEFT adapters in it; pass the model that they were put into, after .unload()"
        )
    return model


def _device(device: str) -> torch.device:
    if device != "auto":
        return torch.device(device)
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return accelerator if accelerator is not None else torch.device("cpu")


def _dtype(dtype: str, device: torch.device) -> Any:
    if dtype == "auto":
        return torch.float32 if device.type == "cpu" else "auto"
    if dtype not in DTYPES:
        raise BaseLoadError(f"dtype {dtype!r} is not one of auto, {', '.join(DTYPES)}")
    return DTYPES[dtype]


def _last_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
