"""An attribute that is computed when it is first asked for, once even when several threads ask at the same time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, cast, overload

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["once"]

T = TypeVar("T")


class once(Generic[T]):  # noqa: N801 - used as a decorator, as functools.cached_property is
    """Like :class:`functools.cached_property`, which lets two threads compute the value twice since Python 3.12.

    The class keeps an ``RLock`` in ``_lock``; deleting the attribute from ``__dict__`` has it computed anew.
    """

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self._compute = compute
        self._name = compute.__name__
        self.__doc__ = compute.__doc__

    @overload
    def __get__(self, owner: None, cls: type) -> Self: ...

    @overload
    def __get__(self, owner: object, cls: type) -> T: ...

    def __get__(self, owner: Any, cls: type) -> Self | T:
        """The value; it is asked for here only until it stands in ``__dict__``."""
        if owner is None:
            return self
        with owner._lock:  # noqa: SLF001
            if self._name not in owner.__dict__:
                owner.__dict__[self._name] = self._compute(owner)
            return cast("T", owner.__dict__[self._name])
