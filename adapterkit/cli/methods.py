"""Commands whose options are those of a method and of the run, besides their own."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from adapterkit.config import option_names
from adapterkit.contracts import TrainOptions

from .options import given, parameters
from .plugins import registry_with

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["command_for_method", "values_of"]

OURS = {"registry", "arguments", "options"}
"""What the functions behind such commands are given besides options."""


def command_for_method(
    arguments: Sequence[str],
    run: Callable[..., None],
    about: str,
    *,
    more: Sequence[inspect.Parameter] = (),
    without: Sequence[str] = (),
) -> Callable[..., None]:
    """The command for the method that ``arguments`` name, or for LoRA.

    Args:
        arguments: The words of the command line: the method must be known before the rest of them can be parsed.
        run: What does the work. Its parameters are options; it is given ``registry``, and ``arguments`` where it takes them.
        about: Its help; ``{method}`` stands for the method's name.
        more: Options besides those of the method and of the run, which go before them.
        without: Options of the run that the command does not take.
    """
    registry = registry_with(tuple(Path(file) for file in values_of(arguments, "--plugin")))
    method = registry.method((values_of(arguments, "--method") or ["lora"])[-1])
    words = inspect.signature(run).parameters
    ours = {"registry": registry, **({"arguments": arguments} if "arguments" in words else {})}
    # a method may have its own word on what is the base's, such as quantization
    taken = {*OURS, *option_names(method.config)}
    hints = get_type_hints(run, localns={"Registry": object, "Sequence": Sequence}, include_extras=True)
    own = [one.replace(annotation=hints[name]) for name, one in words.items() if name not in taken]
    mine = {*without, *(one.name for one in own)}
    others = (*more, *parameters(method.config), *parameters(TrainOptions, method.defaults))
    options = [one for one in others if one.name not in mine]

    def command(*positional: str, **options: Any) -> None:
        run(*positional, **ours, **given(options, method.config))

    command.__doc__ = about.format(method=method.name)
    command.__signature__ = inspect.Signature([*own, *options])  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *options)}
    return command


def values_of(arguments: Sequence[str], option: str) -> list[str]:
    """The values of an option that must be known before the rest can be parsed."""
    found = [word.partition("=")[2] for word in arguments if word.startswith(f"{option}=")]
    return found + [value for word, value in pairwise(arguments) if word == option]
