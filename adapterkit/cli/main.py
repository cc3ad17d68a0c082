"""The entry point: finds the command, keeps errors to a line."""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING

from cyclopts import App

import adapterkit
from adapterkit.errors import AdapterkitError, ConfigError, SelectionError, UnknownNameError

from .new import new
from .plugins import plugins
from .sources import on_command_line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["main"]

SUMMARY = "Train, swap and mix adapters of one shared base model."
COMMANDS = {
    "train": "Train an adapter.",
    "train-many": "Train several adapters in one pass over one base.",
    "sweep": "Search for settings, in shared passes over one base.",
    "generate": "Answer prompts.",
    "serve": "Serve a base and its adapters over HTTP, as OpenAI's API does.",
    "evaluate": "Score an adapter beside the base alone.",
    "compare": "Score adapters on the same rows, and let people mark their answers side by side.",
    "audit": "Look through training data, and for what an adapter has memorised of it.",
    "diff": "Say what differs between two adapters: options, data, scores, and what they do.",
    "lineage": "Say where an adapter comes from: base, data, options, and what it was made of.",
    "report": "Write the report of a run, or a page that compares several.",
    "plan": "Say what training takes, before it begins: memory, time, money, and what would fit.",
    "find-rate": "Find a learning rate: a short run in which it grows until the loss rises.",
    "merge": "Make one adapter of several.",
    "blend": "Find weights for adapters on a few examples.",
    "extract": "Make a low-rank adapter of what was tuned in full.",
    "export": "Write an adapter in the form that another program reads.",
    "store": "Keep versions of adapters: names, aliases, history, rollback.",
    "publish": "Publish an adapter, on the Hub or elsewhere.",
    "pull": "Bring a published adapter into the store.",
    "remote": "List, tag, roll back and delete published versions.",
    "sign": "Sign an adapter's files, or a model's, with a key.",
    "trust": "Say which rule of the trust policy lets an adapter in.",
    "bake": "Write a model of its own: the base with an adapter added to its weights.",
    "check": "Hold a method to its contract, on tiny models that are built in memory.",
}
MODULES = {"generate": "answer", "train-many": "many"}
"""The modules of commands that are not called as they are."""
MISUSE = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0, 1 when the work failed, 2 when it was asked for wrongly.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        _app(given)(given, exit_on_error=False, print_error=True, result_action="return_value")
        sys.stdout.flush()  # a reader that has gone is met here, where it can be said, and not when Python ends
    except (ConfigError, SelectionError, UnknownNameError) as error:
        return _say(error, MISUSE)
    except AdapterkitError as error:
        return _say(error, 1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left to write has nowhere to go
        return 1
    except KeyboardInterrupt as error:
        print(on_command_line(str(error)) or "stopped", file=sys.stderr)
        return 130
    except Exception as error:
        if type(error).__module__.startswith("cyclopts"):
            return MISUSE  # cyclopts has said what is wrong
        raise
    return 0


def _app(arguments: Sequence[str]) -> App:
    """The commands; what needs torch is imported for the one command that is asked for."""
    app = App(
        name="adapterkit",
        help=SUMMARY,
        version=adapterkit.__version__,
        help_format="plaintext",
        suppress_keyboard_interrupt=False,  # what was kept is said below
    )
    app.command(plugins)
    app.command(new)
    command = next((word for word in arguments if not word.startswith("-")), "")
    for name, summary in COMMANDS.items():
        app.command(_command(name, arguments) if name == command else _stand_in(summary), name=name)
    return app


def _command(name: str, arguments: Sequence[str]) -> Callable[..., None]:
    word = name.replace("-", "_")
    module = importlib.import_module("." + MODULES.get(name, word), __package__)
    made: Callable[[Sequence[str]], Callable[..., None]] | None = getattr(module, f"{word}_command", None)
    command: Callable[..., None] = made(arguments) if made else getattr(module, word)
    return command


def _stand_in(summary: str) -> Callable[..., None]:
    """Stands in the list of commands for one that is not asked for."""

    def command() -> None:
        raise NotImplementedError(summary)

    command.__doc__ = summary
    return command


def _say(error: Exception, code: int) -> int:
    print(f"error: {on_command_line(str(error))}", file=sys.stderr)
    return code
