"""Methods of PEFT that do not fit: each says why when it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import attrs

from adapterkit import ConfigError, Method

from .catalogue import REFUSED
from .options import Changes, options_class

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from adapterkit import Site

__all__ = ["RefusedMethod"]


@attrs.frozen(eq=False)
class RefusedMethod(Method):
    """A PEFT type that is known, and the reason why it is not done."""

    reason: str = attrs.field(kw_only=True)

    @classmethod
    def of(cls, peft_type: str) -> RefusedMethod:
        """The method ``peft:<peft_type in lower case>``, which does nothing."""
        return cls(
            f"peft:{peft_type.lower()}",
            options_class(peft_type, Changes()),
            summary=f"PEFT's {peft_type}: not done here, because {REFUSED[peft_type]}",
            peft_type=peft_type,
            reason=REFUSED[peft_type],
        )

    def configure(self, config: Any, sites: Sequence[Site]) -> NoReturn:  # noqa: ARG002
        """Never done.

        Raises:
            ConfigError: Says why.
        """
        raise ConfigError(f"method {self.name!r} is not done here", [f"{self.peft_type}: {self.reason}"])

    def from_peft(self, values: Mapping[str, Any]) -> NoReturn:  # noqa: ARG002
        """Never read.

        Raises:
            ValueError: Says why.
        """
        raise ValueError(self.reason)
