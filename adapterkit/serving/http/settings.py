"""How the server listens, whom it lets in, and what it takes."""

from __future__ import annotations

import ipaddress
import os
from typing import TYPE_CHECKING, Any

import attrs
from attrs.validators import and_, ge, gt, le

from adapterkit.config import build_config
from adapterkit.errors import ConfigError

from .keys import Keys

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ADMIN_KEY", "API_KEY", "Settings"]

API_KEY = "ADAPTERKIT_API_KEY"
ADMIN_KEY = "ADAPTERKIT_ADMIN_KEY"
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


@attrs.frozen(kw_only=True)
class Settings:
    """How the server listens, whom it lets in, and what it takes."""

    host: str = "127.0.0.1"
    """The address to listen at. Beyond this machine, an API key is needed."""
    port: int = attrs.field(default=8000, validator=and_(ge(0), le(65535)))
    """The port; 0 takes a free one."""
    keys: Keys = attrs.field(factory=Keys)
    """Who may ask, and who may change what is served."""
    allow_sources: tuple[str, ...] = ()
    """Where adapters may be added from over HTTP: folders, ``hf://org/*``; what is in the store may always be."""
    drain: float = attrs.field(default=30.0, validator=ge(0.0))
    """Seconds that requests under way may still take when the server is told to stop."""
    max_body: int = attrs.field(default=8 * 2**20, validator=ge(1024))
    """The largest request, in bytes."""
    # longer than proxies keep a connection, commonly 60: whoever asks is to let go of it first, or a request may meet its end
    read_timeout: float = attrs.field(default=75.0, validator=gt(0.0))
    """Seconds in which the head of a request has to come, and then its body; a connection without requests is kept as long."""
    shared: bool = False
    """Whether other servers answer beside this one: then nothing is changed over HTTP but their store, which all of them see."""

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        return _is_loopback(self.host)

    @property
    def host_names(self) -> frozenset[str] | None:
        """What the Host header may name, without the port; None for anything.

        On loopback it is checked: a page elsewhere could else have its own name lead here, and read answers (DNS rebinding).
        """
        return frozenset((*LOOPBACK_NAMES, self.host.lower())) if self.is_loopback else None

    def check(self) -> None:
        """Refuse what would let anybody in.

        Raises:
            ConfigError: It listens beyond this machine, and there is no API key.
        """
        if not self.is_loopback and not self.keys.users:
            raise ConfigError(
                f"host={self.host!r} does not fit",
                [f"others can reach it, and there is no key: set {API_KEY}, or listen at 127.0.0.1"],
            )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None, **options: Any) -> Settings:
        """Settings with the keys of ``ADAPTERKIT_API_KEY`` and ``ADAPTERKIT_ADMIN_KEY``, each one key or several with commas.

        Raises:
            ConfigError: Options that do not fit, a key that no client could send, or one that is for users and admins both.
        """
        found = os.environ if environment is None else environment
        keys = Keys.of(found.get(API_KEY, "").split(","), found.get(ADMIN_KEY, "").split(","))
        made: Settings = build_config(cls, {"keys": keys, **options}, what="options of the server")
        return made


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
