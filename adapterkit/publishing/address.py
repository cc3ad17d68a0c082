"""Addresses of published adapters: ``hf://org/name@v2``, ``s3://bucket/cards``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import attrs

from adapterkit.errors import ConfigError

if TYPE_CHECKING:
    from adapterkit.contracts import Repository
    from adapterkit.registry import Registry

__all__ = ["Address", "is_address", "parse_address"]

ADDRESS = re.compile(r"(?P<url>(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<path>[^\s?#]+?))(?:@(?P<revision>[^@/\s]+))?")
PASSWORD = re.compile(r"[a-z0-9+.-]+://[^/]*:[^/]*@")
MOST = 1000
NAME = re.compile(r"[^a-z0-9._-]+")


@attrs.frozen
class Address:
    """Where a version of an adapter is published.

    Attributes:
        url: The repository, without a slash at its end.
        revision: A tag, a branch or the version's own id; empty for the newest.
    """

    url: str
    revision: str = ""

    @property
    def scheme(self) -> str:
        """What kind of place it is."""
        return self.url.partition("://")[0]

    @property
    def name(self) -> str:
        """The last part of the path, as a name for the store."""
        last = self.url.rpartition("/")[2]
        return NAME.sub("-", last.lower()).strip("-._")[:96] or "adapter"

    def open(self, registry: Registry) -> Repository:
        """The repository; the network is not touched yet.

        Raises:
            UnknownNameError: No plugin knows places of this kind.
        """
        return registry.remote(self.scheme).open(self.url)

    def at(self, revision: str) -> Address:
        """The same place at another revision."""
        return Address(self.url, revision)

    def __str__(self) -> str:
        return f"{self.url}@{self.revision}" if self.revision else self.url


def is_address(text: object) -> bool:
    """Whether a text is meant as an address, and not as a path or a name."""
    return isinstance(text, str) and re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text) is not None


def parse_address(text: str) -> Address:
    """The address that a text is.

    Raises:
        ConfigError: It is none, or holds a password.
    """
    if PASSWORD.match(text):  # before anything quotes it
        raise ConfigError(
            "the address does not fit",
            ["it holds a password, which would end in logs: leave that to the client's own settings"],
        )
    found = ADDRESS.fullmatch(text)
    if found is None or len(text) > MOST or ".." in found["path"].split("/") or not text.isprintable():
        raise ConfigError(
            f"{text!r:.100} is no address", ["write it as hf://org/name, or hf://org/name@v1 for a version"]
        )
    return Address(found["url"].rstrip("/"), found["revision"] or "")
