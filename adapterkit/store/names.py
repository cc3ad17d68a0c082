"""What versions and aliases are called, and what a reference to one may say."""

from __future__ import annotations

import re

import attrs

from adapterkit.errors import ConfigError

__all__ = ["Reference", "check_alias", "check_name", "check_origin", "check_text", "is_reference", "parse"]

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,95}")
NUMBER = re.compile(r"[1-9][0-9]{0,14}")
PREFIX = re.compile(r"[0-9a-f]{8,64}")
DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?")
"""What Windows takes for a device, whatever follows a dot: no folder could be called so."""
SECRET = re.compile(r"://[^/@]*:[^/@]*@")
DIGEST = "sha256:"
MOST_TEXT = 1000
GRAMMAR = "a reference is cards, cards@3, cards@production, cards@sha256:1f0c36a2 or sha256:1f0c36a2"


@attrs.frozen
class Reference:
    """A reference taken apart: at most one of ``number``, ``alias`` and ``digest`` says something.

    Attributes:
        name: Whose version; empty for one that is known by its digest alone.
        number: Which one of them.
        alias: What points at it.
        digest: The beginning of the adapter's digest.
    """

    name: str
    number: int | None = None
    alias: str = ""
    digest: str = ""


def parse(text: str) -> Reference:
    """Take a reference apart.

    Raises:
        ConfigError: It is not written as one is.
    """
    if text.startswith(DIGEST):
        return Reference("", digest=_prefix(text, text))
    name, at, which = text.partition("@")
    if not NAME.fullmatch(name):
        raise _malformed(text)
    if not at:
        return Reference(name)
    if which.startswith(DIGEST):
        return Reference(name, digest=_prefix(which, text))
    if NUMBER.fullmatch(which):
        return Reference(name, int(which))
    if which.isdigit() or not NAME.fullmatch(which):
        raise _malformed(text)
    return Reference(name, alias=which)


def is_reference(text: str) -> bool:
    """Whether a text is written as a reference is; not whether it means anything."""
    try:
        parse(text)
    except ConfigError:
        return False
    return True


def check_name(name: str) -> str:
    """The name, if versions may be called so.

    Raises:
        ConfigError: They may not.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name) or name.endswith("."):
        raise ConfigError(f"name={name!r:.100} does not fit", [_rule("a name")])
    if DEVICE.fullmatch(name):
        raise ConfigError(f"name={name!r} does not fit", ["it is the name of a device on Windows; give another one"])
    return name


def check_alias(alias: str) -> str:
    """The alias, if one may be called so: a number or a digest would be taken for what it is not.

    Raises:
        ConfigError: It may not.
    """
    if not isinstance(alias, str) or not NAME.fullmatch(alias):
        raise ConfigError(f"alias={alias!r:.100} does not fit", [_rule("an alias")])
    if alias.isdigit() or alias.startswith("sha256"):
        raise ConfigError(f"alias={alias!r} does not fit", ["it would be read as a version's number or digest"])
    return alias


def check_origin(origin: str) -> None:
    """Refuse what would have the index hold a password, or could not stand in a line; what is refused is not repeated.

    Raises:
        ConfigError: It holds a password, or is no line.
    """
    if isinstance(origin, str) and SECRET.search(origin):
        raise ConfigError("origin does not fit", ["it holds a password or a token before the @: leave that out"])
    check_text(origin=origin)


def check_text(**texts: str) -> None:
    """Refuse what could not stand in one line of a terminal.

    Raises:
        ConfigError: A text is too long, or holds a line break or another control character.
    """
    for name, text in texts.items():
        if not isinstance(text, str) or len(text) > MOST_TEXT or not text.isprintable():
            raise ConfigError(
                f"{name}={text!r:.80} does not fit", [f"give one line of at most {MOST_TEXT:,} characters"]
            )


def _prefix(text: str, whole: str) -> str:
    prefix = text.removeprefix(DIGEST)
    if not PREFIX.fullmatch(prefix):
        raise ConfigError(
            f"the reference {whole!r:.200} does not fit", ["a digest is given by its first 8 to 64 hex digits"]
        )
    return prefix


def _malformed(text: str) -> ConfigError:
    return ConfigError(f"the reference {text!r:.200} does not fit", [GRAMMAR])


def _rule(what: str) -> str:
    return f"{what} has at most 96 small letters, digits, dots, dashes and underscores, and begins with a letter or a digit"
