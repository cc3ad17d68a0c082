"""Names, options and targets: what users write, and what files hold."""

from __future__ import annotations

import inspect
import json
import re
from typing import TYPE_CHECKING, Any

import attrs

from adapterkit.config import build_config, from_dict, option_names, to_dict
from adapterkit.contracts import Method, TrainOptions
from adapterkit.contracts.method import OPERATIONS
from adapterkit.errors import AdapterkitError, ConfigError, TargetError
from adapterkit.testing.outcomes import CheckFailed, DoesNotApply, require
from adapterkit.testing.words import ROWS

if TYPE_CHECKING:
    from adapterkit.testing.subject import Subject

__all__ = [
    "config_is_left_alone",
    "config_survives_json",
    "configuring_again_changes_nothing",
    "name_and_options_can_be_written",
    "operations_are_given_what_they_ask_for",
    "targets_that_match_nothing_are_refused",
    "wrong_options_are_refused",
]

NAME = re.compile(r"[a-z][a-z0-9_]*(:[a-z][a-z0-9_]*)?")


def name_and_options_can_be_written(subject: Subject) -> None:
    """The name and every option can be written in Python, on the command line and in files, and the defaults fit.

    An option with a leading underscore, or a default that its own validator refuses, fails only when somebody uses it.
    """
    method = subject.method
    require(
        NAME.fullmatch(method.name),
        f"the name {method.name!r} is not made of lower-case words with underscores between",
    )
    for field in attrs.fields(method.config):
        require(
            not field.name.startswith("_") and field.alias == field.name,
            f"the option {field.name!r} is called {field.alias!r} when it is given: drop the underscore before it",
        )
    defaults = {option: getattr(subject.config(), option) for option in option_names(method.config)}
    build_config(method.config, defaults, what="the defaults of the options")
    build_config(TrainOptions, dict(method.defaults), what="the method's defaults for training")


def operations_are_given_what_they_ask_for(subject: Subject) -> None:
    """No operation gives an argument a default: hooks are called with the arguments that have none, and with no others.

    A ``build(self, config, sites=())`` would be called without the sites.
    """
    for name in OPERATIONS:
        mine = inspect.signature(getattr(type(subject.method), name)).parameters.values()
        defaults = [one.name for one in mine if one.default is not inspect.Parameter.empty]
        require(
            not defaults,
            f"{name} gives {', '.join(defaults)} a default, and so will never be given a value: take it out",
        )
        known = set(inspect.signature(getattr(Method, name)).parameters)
        strange = [one.name for one in mine if one.name not in known]
        require(not strange, f"{name} asks for {', '.join(strange)}; there is {', '.join(sorted(known - {'self'}))}")


def wrong_options_are_refused(subject: Subject) -> None:
    """A misspelt option is refused with a suggestion, and a value of the wrong type with the option's name.

    Whatever is not refused here becomes a surprise in the middle of somebody's run. An option that is annotated ``Any`` takes
    everything.
    """
    names = option_names(subject.method.config)
    for name in names:
        try:
            build_config(subject.method.config, {**subject.options, name: object()}, what="options")
        except ConfigError as error:
            require(any(name in problem for problem in error.problems), f"the error does not name {name!r}: {error}")
        else:
            raise CheckFailed(f"the option {name!r} takes any value whatever: annotate it with its type")
    _check_misspelt(subject, f"{names[0]}{names[0][-1]}" if names else "no_such_option", suggestion=bool(names))


def _check_misspelt(subject: Subject, name: str, *, suggestion: bool) -> None:
    try:
        subject.base().train(list(ROWS), method=subject.name, **{**subject.options, name: 1})
    except ConfigError as error:
        said = next((problem for problem in error.problems if name in problem), "")
        require(said, f"the misspelt option {name!r} is not named: {error}")
        require(not suggestion or "did you mean" in said, f"nothing is suggested for the misspelt option: {said}")
    else:
        raise CheckFailed(f"the misspelt option {name!r} was taken without a word")


def config_is_left_alone(subject: Subject) -> None:
    """The configuration is a value: no operation changes it, not even a list or a mapping inside it.

    It is what the adapter keeps, what its digest is taken of and what ``build`` is called with again when it is loaded.
    """
    base = subject.base()
    config = subject.config()
    before = to_dict(config)
    for name in option_names(type(config)):
        try:
            setattr(config, name, getattr(config, name))
        except attrs.exceptions.FrozenInstanceError:
            continue
        raise CheckFailed(f"the option {name!r} of a configuration can be set: use @attrs.frozen")
    resolved = subject.registry.call("configure", subject.method, config=config, sites=base.sites)
    require(
        to_dict(config) == before,
        "configure changes the configuration that it is given: return another with attrs.evolve",
    )
    before = to_dict(resolved)
    for _ in range(2):
        subject.registry.call("build", subject.method, config=resolved, sites=base.sites)
    require(
        to_dict(resolved) == before,
        f"build changes the configuration that it is given: {before} became {to_dict(resolved)}",
    )


def config_survives_json(subject: Subject) -> None:
    """A configuration that was written to a file and read again is the same: the adapter's folder holds it as JSON.

    Options must be numbers, texts, true or false, None, tuples and mappings of these, and be annotated so.
    """
    for config in (subject.config(), subject.config(subject.base())):
        try:
            again = from_dict(type(config), json.loads(json.dumps(to_dict(config))), what="the configuration from JSON")
        except TypeError as error:
            raise CheckFailed(f"the configuration cannot be written as JSON: {error}") from error
        require(
            again == config,
            f"{config} became {again} on the way through JSON: tuples and mappings must be annotated so",
        )


def configuring_again_changes_nothing(subject: Subject) -> None:
    """``configure`` decides once: the same configuration gives the same answer, and what is decided stays so.

    A configuration is resolved when an adapter is trained, and may be again by whoever trains on from it.
    """
    base = subject.base()
    once = subject.config(base)
    require(
        to_dict(subject.config(base)) == to_dict(once),
        "configure answers otherwise when it is asked the same a second time: it must not draw numbers or count calls",
    )
    twice = subject.registry.call("configure", subject.method, config=once, sites=base.sites)
    require(
        to_dict(twice) == to_dict(once),
        f"configure changes a configuration that it has resolved before: {to_dict(once)} became {to_dict(twice)}",
    )


def targets_that_match_nothing_are_refused(subject: Subject) -> None:
    """A name in ``target_modules`` that no layer has is a TargetError that lists the names that exist.

    Else a misspelt name trains less than was asked for, or nothing, without a word.
    """
    if "target_modules" not in option_names(subject.method.config):
        raise DoesNotApply("the method has no option `target_modules`")
    base = subject.base()
    wanted: dict[str, Any] = {**subject.options, "target_modules": ("no_such_layer",)}
    mine = {name: value for name, value in wanted.items() if name in option_names(subject.method.config)}
    try:
        config: Any = build_config(subject.method.config, mine, what="options")
        subject.registry.call("configure", subject.method, config=config, sites=base.sites)
    except TargetError as error:
        names = {site.name.rpartition(".")[2] for site in base.sites}
        require(any(name in str(error) for name in names), f"the error does not list the layers that exist: {error}")
    except AdapterkitError as error:
        raise CheckFailed(f"it is refused with {type(error).__name__}, not TargetError: {error}") from error
    else:
        raise CheckFailed(
            "target_modules=['no_such_layer'] was taken without a word: match names with `match` or `targeted`"
        )
