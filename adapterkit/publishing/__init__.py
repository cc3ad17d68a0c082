"""Publishing adapters, and pulling what others have published: one core for every kind of place."""

from .adapters import Published, publish
from .address import is_address
from .finding import find, find_one, is_named
from .places import delete, revisions, rollback, tag, untag
from .pulling import pull

__all__ = [
    "Published",
    "delete",
    "find",
    "find_one",
    "is_address",
    "is_named",
    "publish",
    "pull",
    "revisions",
    "rollback",
    "tag",
    "untag",
]
