"""Keys: who a request is from, told in a time that does not depend on the key."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Literal

import attrs

from adapterkit.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Access", "Caller", "Keys"]

Access = Literal["open", "user", "admin"]
"""Who may call a route: anybody, who has a key, or who has an admin's key."""


@attrs.frozen
class Caller:
    """Who a request is from.

    Attributes:
        role: ``"admin"``, ``"user"``, or ``""`` for who has shown no key that is known.
        name: The beginning of the key's digest, which counts requests by key and gives the key away to nobody.
        shown: Whether a key was shown at all.
    """

    role: Literal["admin", "user", ""] = ""
    name: str = ""
    shown: bool = False


@attrs.frozen
class Keys:
    """Digests of the keys; the keys themselves are not kept.

    Attributes:
        users: Of who may ask.
        admins: Of who may change what is served, and ask.
    """

    users: tuple[bytes, ...] = attrs.field(default=(), repr=False)
    admins: tuple[bytes, ...] = attrs.field(default=(), repr=False)

    @classmethod
    def of(cls, users: Iterable[str] = (), admins: Iterable[str] = ()) -> Keys:
        """The digests of keys; empty texts are none.

        Raises:
            ConfigError: A key is not printable ASCII, so that no client could send it; or it is for users and admins both.
        """
        made = cls(tuple(map(_digest, _checked(users))), tuple(map(_digest, _checked(admins))))
        if set(made.users) & set(made.admins):
            raise ConfigError(
                "the keys do not fit", ["a key is for users and for admins: give admins one of their own"]
            )
        return made

    def caller(self, authorization: bytes) -> Caller:
        """Who has sent this ``Authorization`` header; empty for none."""
        scheme, _, key = authorization.strip().partition(b" ")
        key = key.strip()
        if scheme.lower() != b"bearer" or not key:
            return Caller(shown=bool(authorization))
        digest = _digest(key)
        name = digest.hex()[:16]
        if _is_among(digest, self.admins):
            return Caller("admin", name, shown=True)
        return Caller("user", name, shown=True) if _is_among(digest, self.users) else Caller(shown=True)


def _is_among(digest: bytes, known: tuple[bytes, ...]) -> bool:
    """Whether it is one of them; all are compared, whichever is met first."""
    return sum(hmac.compare_digest(digest, one) for one in known) > 0


def _digest(key: bytes | str) -> bytes:
    return hashlib.sha256(key.encode() if isinstance(key, str) else key).digest()


def _checked(keys: Iterable[str]) -> list[str]:
    kept = [key.strip() for key in keys if key.strip()]
    if not all(key.isascii() and key.isprintable() and " " not in key for key in kept):
        raise ConfigError("the keys do not fit", ["a key is of printable ASCII, without spaces"])
    return kept
