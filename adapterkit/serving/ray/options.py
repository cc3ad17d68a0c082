"""How many replicas there are, what each may take, and what each of them opens."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
from attrs.validators import ge, optional

from adapterkit.errors import ConfigError
from adapterkit.store import Store

if TYPE_CHECKING:
    from adapterkit.registry import Registry
    from adapterkit.serving.http import Settings

__all__ = ["RayOptions", "Recipe", "this_machine"]

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@attrs.frozen(kw_only=True)
class RayOptions:
    """How many replicas there are, and what each may take."""

    replicas: int = attrs.field(default=1, validator=ge(1))
    """Replicas, each with the base; the fewest, where there may be more."""
    max_replicas: int | None = attrs.field(default=None, validator=optional(ge(1)))
    """The most, where their number follows the requests; without it, it is fixed."""
    target_requests: int | None = attrs.field(default=None, validator=optional(ge(1)))
    """Requests under way for each replica, beyond which there are to be more replicas; the engine's max_batch by default."""
    max_requests: int | None = attrs.field(default=None, validator=optional(ge(1)))
    """Requests that a replica has at once: further ones go to another one. Twice the engine's max_batch by default."""
    max_adapters: int = attrs.field(default=256, validator=ge(1))
    """Adapters that requests are sent to one replica for: of more than these, those asked for last."""
    ingresses: int = attrs.field(default=1, validator=ge(1))
    """Processes that read which adapter a request is for, and pass it on."""
    cpus: float = attrs.field(default=1.0, validator=ge(0.0))
    """CPUs of each replica."""
    gpus: float | None = attrs.field(default=None, validator=optional(ge(0.0)))
    """GPUs of each replica; by default one, where the machine that says so has any and the base is not to be on its CPU."""

    def __attrs_post_init__(self) -> None:
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise ValueError(f"max_replicas={self.max_replicas} is less than replicas={self.replicas}")


@attrs.frozen(kw_only=True)
class Recipe:
    """What a replica opens; it is sent to other machines, and names what lies where all of them can see it.

    Attributes:
        base: A folder, or a Hub id.
        adapters: Names, and the folders, blends' files, references of the store or addresses that they mean.
        store: The store's folder; None for none.
        machine: The machine that the store is of, as of :func:`this_machine`.
        base_name: What asks for the base alone.
        opening: Options of the base.
        plugins: Files of plugins.
        engine: Options of the engine.
        settings: Whom to let in, and what to take.
        max_adapters: Of :class:`RayOptions`.
    """

    base: str
    adapters: dict[str, str]
    store: str | None
    machine: str
    base_name: str
    opening: dict[str, Any]
    plugins: tuple[str, ...]
    engine: dict[str, Any]
    settings: Settings
    max_adapters: int

    def open_store(self, registry: Registry | None = None) -> Store | None:
        """The store, if there is one.

        Raises:
            ConfigError: It is of another machine: two machines that write its index at once would damage it.
        """
        if self.store is None:
            return None
        if self.machine != this_machine():
            said = "have all replicas on that one, or name adapters by folders and addresses instead"
            raise ConfigError(
                "store does not fit",
                [f"{self.store!r} is of another machine, and SQLite's locks do not reach here: {said}"],
            )
        return Store(self.store, registry=registry)


def this_machine() -> str:
    """What tells this machine, as it has been started, from all others; containers on it are the same machine."""
    return BOOT_ID.read_text().strip() if BOOT_ID.exists() else platform.node()
