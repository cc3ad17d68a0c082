"""Pulls a published adapter into the store: the commit pinned, no file but its own, through the trusted loader."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from adapterkit.artifact.layout import MANIFEST, PEFT_CONFIG, WEIGHTS
from adapterkit.errors import ArtifactError, ConfigError, RemoteError, UnknownNameError
from adapterkit.registry import default_registry
from adapterkit.store import Store
from adapterkit.trust import current_policy
from adapterkit.trust.reading import MOST_BYTES
from adapterkit.trust.sources import true_url

from .address import Address, parse_address
from .sending import say

if TYPE_CHECKING:
    from collections.abc import Mapping

    from adapterkit.contracts import Repository
    from adapterkit.registry import Registry
    from adapterkit.store import Version

__all__ = ["check_sizes", "pull", "settled"]


def pull(url: str, *, name: str | None = None, store: Store | None = None, registry: Registry | None = None) -> Version:
    """Bring a published adapter into the store; of one that is there already, the manifest alone is fetched again.

    Args:
        url: Such as ``"hf://org/cards@v1"``: a tag, a branch or a commit; the newest version without one.
        name: What it is called in the store; by default ``"org--cards"``, apart from what was named there.
        store: By default the store of this user.
        registry: The plugins to use.

    Returns:
        The version in the store, whose ``origin`` is the address with the commit.

    Raises:
        UnknownNameError: There is no such repository or revision.
        RemoteError: It cannot be reached, or does not keep its word.
        ArtifactError: What is there is refused, by the trust policy too; nothing of it is kept.
    """
    plugins = registry or default_registry()
    named = parse_address(url)
    address = settled(named)
    policy = current_policy()
    if policy is not None:
        policy.check_place(address.url)  # before anything is asked there
    held = store or Store(registry=plugins)
    repository = address.open(plugins)
    pinned = address.at(repository.resolve(address.revision))
    if parse_address(str(pinned)) != pinned:
        raise RemoteError(f"{address} calls a version {pinned.revision!r:.100}, which is no id")
    if policy is not None:
        policy.check(str(pinned), follow=False)
    wanted = name or named.name
    sizes = repository.sizes(pinned.revision, tuple(MOST_BYTES))
    check_sizes(pinned, sizes)
    known = [version for version in _versions(held, wanted) if version.origin == str(pinned)]
    if known and (MANIFEST not in sizes or known[-1].manifest == _digest_there(repository, pinned.revision, MANIFEST)):
        return known[-1]
    say(f"fetching {sum(sizes.values()):,} bytes from {pinned.url}@{pinned.revision[:12]}")
    with held.downloading(str(pinned)) as folder:
        repository.fetch(pinned.revision, sorted(sizes), folder)
        try:
            return held.add(folder, wanted, origin=str(pinned), why=f"pulled from {address}")
        except ArtifactError as error:
            said = str(error).replace(f"adapter folder {str(folder)!r}", str(pinned))
            raise type(error)(said) from None


def _digest_there(repository: Repository, revision: str, name: str) -> str:
    """The sha256 of a small file of a revision: servers of one name need not hold the same."""
    with tempfile.TemporaryDirectory(prefix="adapterkit-") as folder:
        repository.fetch(revision, [name], Path(folder))
        return hashlib.sha256((Path(folder) / name).read_bytes()).hexdigest()


def settled(address: Address) -> Address:
    """The same, with the links of a folder's path followed: one that is changed from here on leads nowhere else.

    Raises:
        ConfigError: They lead to a folder that no address can name, such as one with a space.
    """
    found = Address(true_url(address.url), address.revision)
    if parse_address(f"{found.url}@0").url != found.url:
        raise ConfigError(f"{address} does not fit", [f"it leads to {found.url!r}, which no address can name"])
    return found


def _versions(store: Store, name: str) -> list[Version]:
    try:
        return store.versions(name)
    except UnknownNameError:
        return []


def check_sizes(address: Address, sizes: Mapping[str, int]) -> None:
    """Refuse what is no adapter, or is too large to be one, before it is fetched.

    Raises:
        ArtifactError: It is.
    """
    if WEIGHTS not in sizes or not {MANIFEST, PEFT_CONFIG} & set(sizes):
        raise ArtifactError(f"{address} holds no adapter: {WEIGHTS} and {MANIFEST} or {PEFT_CONFIG} are not there")
    for name, size in sizes.items():
        if size > MOST_BYTES[name]:
            raise ArtifactError(f"{address}: {name} has {size:,} bytes; at most {MOST_BYTES[name]:,} are fetched")
