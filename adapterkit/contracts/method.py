"""What a method is: how it trains, how it is lowered to effects, how PEFT calls it.

A method's operations are ordinary methods of a class. The registry turns each into an implementation of the hook of the
same name (``build`` answers ``adapterkit_build``), asked for this method alone, so that other plugins may wrap it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

    from adapterkit.effects import Effects
    from adapterkit.sites import Site

__all__ = ["OPERATIONS", "Method"]

OPERATIONS = ("configure", "build", "lower")


@attrs.frozen(eq=False)
class Method:
    """A way to adapt a base.

    Attributes:
        name: What users write in ``method=``; lower-case with underscores.
        config: A frozen attrs class; its fields are the method's options in Python, on the command line and in files.
        summary: One line for listings.
        defaults: Training options that suit this method better than the general ones, such as ``learning_rate``.
        peft_type: The name that PEFT gives to this method, when its files are PEFT's; else empty.
    """

    name: str
    config: type
    summary: str = attrs.field(default="", kw_only=True)
    defaults: Mapping[str, Any] = attrs.field(factory=dict, kw_only=True)
    peft_type: str = attrs.field(default="", kw_only=True)

    def configure(self, config: Any, sites: Sequence[Site]) -> Any:  # noqa: ARG002 - the default keeps everything
        """The configuration with everything decided that depends on the base, such as ``"all-linear"``.

        Raises:
            TargetError: The configuration names sites that this base does not have.
        """
        return config

    def build(self, config: Any, sites: Sequence[Site]) -> Mapping[str, nn.Module]:
        """A fresh layer for each site that the configuration names, by site name.

        It is also called on the meta device, to learn which tensors, of which shapes, an adapter file must hold.
        """
        raise NotImplementedError(f"method {self.name!r} does not say how to build its layers")

    def lower(self, layers: Mapping[str, nn.Module]) -> Effects | None:  # noqa: ARG002
        """What the trained layers do, as effects by site name; None when it cannot be said so.

        What cannot be lowered acts through its own layers, row by row of the batch.
        """
        return None

    def to_peft(self, config: Any) -> dict[str, Any] | None:  # noqa: ARG002
        """The fields of PEFT's ``adapter_config.json`` that say the same; None when PEFT has no such method."""
        return None

    def from_peft(self, values: Mapping[str, Any]) -> Any:  # noqa: ARG002
        """The inverse of :meth:`to_peft`.

        Raises:
            ValueError: The file asks for something that this method does not do.
        """
        raise ValueError(f"method {self.name!r} has no PEFT form")
