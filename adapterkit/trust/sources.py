"""Where adapters come from, in one spelling each, and the patterns that name such places."""

from __future__ import annotations

import os
import re
from pathlib import Path

import attrs

__all__ = ["LOCAL", "PASSWORD", "Pattern", "Source", "true_url"]

LOCAL = "local"
"""The source of what was made on this machine and lies in its store."""
_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<rest>.*)", re.DOTALL)
_FOLDERS = ("file", "local")
"""Schemes whose paths are folders here, which links may lead to."""
PASSWORD = re.compile(
    r"[a-z][a-z0-9+.-]*://"
    r"(?!([^/:@]*@)?([^/:@]*|\[[0-9a-f:.]*\]):[0-9]{1,5}(/[^@]*(@[^@/]*)?)?$|[a-z]:/[^@]*(@[^@/]*)?$)"  # a port, a drive
    r"[^/]*:.*@",
    re.DOTALL | re.IGNORECASE,
)
"""A URL with a password, which may hold slashes: a colon before the first slash that begins no port, and an ``@`` behind."""


@attrs.frozen
class Source:
    """Where an adapter comes from.

    Links are followed once, by :meth:`at`, before anything is read. What was found then is read, and is what is held to a policy
    then and later: whoever changes a link in between changes nothing.

    Attributes:
        place: :data:`LOCAL`, the true path of a folder, or a URL without its revision.
        revision: The id of the version, as far as a URL names one.
    """

    place: str
    revision: str = ""

    @classmethod
    def of(cls, origin: str | os.PathLike[str]) -> Source:
        """The source that a whole path or a URL names, whose links were followed before; nothing at all is what was made here.

        Raises:
            ValueError: It could be read in several ways: a part of it is empty, ``.`` or ``..``; or it holds a password.
        """
        text = os.fspath(origin)
        if not text or text == LOCAL:
            return cls(LOCAL)
        if not _URL.fullmatch(text):
            path = Path(text).as_posix()
            _check_whole(text, path)
            if path != "/":
                _check_parts(text, path.removeprefix("/").split("/"))
            return cls(path)
        return cls(*_split(text))

    @classmethod
    def at(cls, origin: str | os.PathLike[str]) -> Source:
        """The source to which a folder's path or a URL leads now.

        Raises:
            ValueError: As of :meth:`of`.
        """
        text = os.fspath(origin)
        if not text or text == LOCAL:
            return cls(LOCAL)
        if not _URL.fullmatch(text):
            return cls(_true(text))
        place, revision = _split(text)
        return cls(true_url(place), revision)

    def __str__(self) -> str:
        return f"{self.place}@{self.revision}" if self.revision else self.place


@attrs.frozen
class Pattern:
    """Which sources a rule is about.

    ``*`` stands for anything within one part of a path, ``**`` for any number of parts. Case counts, links are followed, and a
    revision that is named must be the version's own id.

    Attributes:
        text: As it stands in the policy.
        place: The same in the spelling of :class:`Source`.
        revision: The revision that it names; empty for any.
    """

    text: str
    place: str
    revision: str = ""

    @classmethod
    def of(cls, text: str) -> Pattern:
        """The pattern that a text is.

        Raises:
            ValueError: It is none, or says less than it seems to.
        """
        if text == LOCAL:
            return cls(text, LOCAL)
        if _URL.fullmatch(text):
            place, revision = _split(text)
            scheme, _, rest = place.partition("://")
            place = f"{scheme}://{_true_before_star(rest)}" if scheme in _FOLDERS else place
        else:
            path = Path(text).expanduser()
            if not path.is_absolute():
                raise ValueError(f"must be {LOCAL!r}, a URL such as 'hf://org/*' or a whole path such as '/srv/**'")
            _check_parts(text, path.as_posix().lstrip("/").split("/"))
            place, revision = _true_before_star(path.as_posix()), ""
        if any("**" in part and part != "**" for part in place.split("/")):
            raise ValueError("** stands alone between slashes")
        return cls(text, place, revision)

    def matches(self, source: Source, *, any_case: bool = False) -> bool:
        """Whether ``source`` is one of those."""
        flags = re.DOTALL | (re.IGNORECASE if any_case else 0)
        pinned = not self.revision or re.fullmatch(_within(self.revision), source.revision, flags)
        return bool(pinned and re.fullmatch(_expression(self.place), source.place, flags))

    def names(self, place: str) -> bool:
        """Whether some revision of what is at ``place`` is one of those."""
        return re.fullmatch(_expression(self.place), place, re.DOTALL) is not None


def _split(url: str) -> tuple[str, str]:
    """A URL's one spelling, and its revision."""
    parsed = _URL.fullmatch(url)
    if parsed is None:
        raise ValueError("is no URL")
    scheme, rest = parsed["scheme"].lower(), parsed["rest"]
    before, slash, last = rest.rpartition("/")
    name, _, revision = last.rpartition("@") if "@" in last else (last, "", "")
    if PASSWORD.match(url):
        raise ValueError("a URL holds a password: leave it out, and give it as the place's own settings say")
    path = f"{before}{slash}{name}".removesuffix("/")
    _check_parts(url, (path.removeprefix("/") if scheme in _FOLDERS else path).split("/"))
    if scheme in _FOLDERS:
        _check_whole(url, path)
    return f"{scheme}://{path}", revision


def true_url(url: str) -> str:
    """A URL without its revision, whose path is taken to where it leads if it is a folder's."""
    scheme, _, path = url.partition("://")
    return f"{scheme}://{_true(os.path.expanduser(path))}" if scheme in _FOLDERS else url  # noqa: PTH111 - "~" alone may lead nowhere


def _check_whole(text: str, path: str) -> None:
    if not Path(path).is_absolute():
        raise ValueError(f"{text!r:.200} is another folder wherever it is asked from: write the whole path, file:///…")


def _check_parts(text: str, parts: list[str]) -> None:
    odd = next((part for part in parts if part in ("", ".", "..")), None)
    if odd is not None or "\0" in text:
        raise ValueError(f"{text!r:.200} is not written plainly: a part of it is empty, '.' or '..'")


def _true_before_star(path: str) -> str:
    """A path, of which what comes before the first ``*`` is taken to where it leads."""
    parts = path.split("/")
    plain = next((number for number, part in enumerate(parts) if "*" in part), len(parts))
    led = _true("/".join(parts[:plain]) or "/")
    return "/".join([led.rstrip("/"), *parts[plain:]]) or "/"


def _true(path: str) -> str:
    return Path(os.path.realpath(path)).as_posix()


def _expression(place: str) -> str:
    return "/".join(".+" if part == "**" else _within(part) for part in place.split("/"))


def _within(part: str) -> str:
    return "[^/]+" if part == "*" else "[^/]*".join(re.escape(piece) for piece in part.split("*"))
