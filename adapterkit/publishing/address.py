"""Addresses of published adapters: ``hf://org/name@v2``, ``s3://bucket/cards``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import attrs

from adapterkit.errors import ConfigError
from adapterkit.trust.sources import PASSWORD

if TYPE_CHECKING:
    from adapterkit.contracts import Repository
    from adapterkit.registry import Registry

__all__ = ["Address", "check_tag_name", "is_address", "parse_address"]

ADDRESS = re.compile(r"(?P<url>(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<path>[^\s?#]+?))(?:@(?P<revision>[^@/\s]+))?")
MOST = 1000
FOLDERS = ("file", "hdfs", "sftp", "smb")
TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
NO_TAG = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}|main|HEAD")
"""What a commit or a branch is called."""
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
        """What it is called in the store, where it stays apart from names that were given there: ``org--cards``."""
        parts = [NAME.sub("-", part.lower()).strip("-._") for part in self.url.partition("://")[2].split("/")]
        return "--".join(part for part in parts[-2:] if part)[-96:].lstrip("-._") or "adapter"

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


def _is_plain(path: str, scheme: str) -> bool:
    """Whether it leads to one place, and is the one way to write that: only paths of folders begin with a slash."""
    return path.isprintable() and ".." not in path.split("/") and (not path.startswith("/") or scheme in FOLDERS)


def check_tag_name(name: str) -> None:
    """Refuse what is no name for a version, or would be taken for something else.

    Raises:
        ConfigError: It is none.
    """
    if not TAG.fullmatch(name) or NO_TAG.fullmatch(name):
        cure = "letters, digits, '.', '_' and '-', 96 at most, such as v1.2"
        raise ConfigError(f"tag {name!r:.100} is no name for a version", [cure])


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
    if found is None or len(text) > MOST or not _is_plain(found["path"], found["scheme"]):
        raise ConfigError(f"{text!r:.100} is no address", ["write hf://org/name, or hf://org/name@v1 for a version"])
    if found["scheme"] in ("http", "https"):  # as a browser shows it
        path = "/".join(found["path"].split("/")[1:3]) or "org/name"
        raise ConfigError(f"{text!r:.100} is no address", [f"what is on the Hub is called hf://{path}"])
    return Address(found["url"].rstrip("/"), found["revision"] or "")
