"""Sorts the options of ``Base.train`` into those of the method and those of the run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapterkit.config import build_config, option_names
from adapterkit.contracts import TrainOptions
from adapterkit.errors import ConfigError, suggest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from adapterkit.contracts import Method

__all__ = ["split_options"]

ELSEWHERE = {
    "lora_alpha": "alpha",
    "lora_dropout": "dropout",
    "lr": "learning_rate",
    "num_train_epochs": "epochs",
    "per_device_train_batch_size": "batch_size",
    "r": "rank",
}
"""What PEFT and transformers call some of our options: for suggestions only."""


def split_options(method: Method, options: Mapping[str, Any]) -> tuple[Any, TrainOptions]:
    """The method's configuration and the run's options; the method's own defaults go before the general ones.

    Raises:
        ConfigError: Every name that neither knows and every value that does not fit, together.
    """
    of_method, of_run = option_names(method.config), option_names(TrainOptions)
    known = {*of_method, *of_run}
    problems = [
        f"{name}: neither method {method.name!r} nor training has it{_hint(name, known)}"
        for name in options
        if name not in known
    ]
    config = _try(method.config, {k: v for k, v in options.items() if k in of_method}, problems)
    run = _try(TrainOptions, {**method.defaults, **{k: v for k, v in options.items() if k in of_run}}, problems)
    if problems:
        raise ConfigError("options of train do not fit", problems)
    return config, run


def _try(cls: type, values: dict[str, Any], problems: list[str]) -> Any:
    try:
        return build_config(cls, values, what="options")
    except ConfigError as error:
        problems.extend(error.problems)
        return None


def _hint(name: str, known: set[str]) -> str:
    other = ELSEWHERE.get(name)
    return f"; did you mean {other!r}?" if other in known else suggest(name, known)
