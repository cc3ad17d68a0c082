"""Sorts the options of ``Base.train`` into those of the method and those of the run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapterkit.config import build_config, option_names
from adapterkit.contracts import TrainOptions
from adapterkit.errors import ConfigError, listed, suggest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from adapterkit.contracts import Method

__all__ = ["split_options"]

SAME = (
    ("alpha", "lora_alpha"),
    ("batch_size", "per_device_train_batch_size"),
    ("dropout", "lora_dropout"),
    ("epochs", "num_train_epochs"),
    ("init_text", "prompt_tuning_init_text"),
    ("learning_rate", "lr"),
    ("quantize", "load_in_4bit"),
    ("rank", "r"),
    ("tokens", "num_virtual_tokens"),
)
"""Our names and what PEFT and transformers call the same, in either direction: for suggestions only."""


def split_options(method: Method, options: Mapping[str, Any], others: Iterable[str] = ()) -> tuple[Any, TrainOptions]:
    """The method's configuration and the run's options; the method's own defaults go before the general ones.

    ``others`` are names that ``train`` takes besides, for suggestions.

    Raises:
        ConfigError: Every name that neither knows and every value that does not fit, together.
    """
    of_method, of_run = option_names(method.config), option_names(TrainOptions)
    problems = _unknown(
        method, [name for name in options if name not in {*of_method, *of_run}], of_method, {*of_run, *others}
    )
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


def _unknown(method: Method, names: list[str], of_method: Iterable[str], of_run: Iterable[str]) -> list[str]:
    """What is said of options that nothing knows; those that the method has are listed once, where no name comes near."""
    problems, told = [], False
    for name in names:
        hint = _hint(name, {*of_method, *of_run})
        if not hint and not told:
            hint, told = f"; the method has: {listed(sorted(of_method))}", True
        problems.append(f"{name}: neither method {method.name!r} nor training has it{hint}")
    return problems


def _hint(name: str, known: set[str]) -> str:
    other = next((one for pair in SAME if name in pair for one in pair if one in known), None)
    return f"; did you mean {other!r}?" if other else suggest(name, known)
