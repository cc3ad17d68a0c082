"""A Hub on this machine, for tests: the unmodified huggingface_hub talks to it over HTTP, by the Xet protocol too.

It keeps model repositories in memory, with commits, tags, branches and private repositories, and misbehaves on demand.
"""

from .faults import Fault, Faults
from .hub import Hub
from .kinds import KINDS
from .messages import Seen
from .repositories import Commit, File, Repository

__all__ = ["KINDS", "Commit", "Fault", "Faults", "File", "Hub", "Repository", "Seen"]
