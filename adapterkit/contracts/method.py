"""What a method is: how it trains, how it is lowered to effects, what it promises, how PEFT calls it.

A method's operations are ordinary methods of a class. The registry turns each into an implementation of the hook of the
same name (``build`` answers ``adapterkit_build``), asked for this method alone, so that other plugins may wrap it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

    from adapterkit.base import Base
    from adapterkit.effects import Effects
    from adapterkit.sites import Site

    from .objective import Example

__all__ = ["OPERATIONS", "Method", "Traits"]

OPERATIONS = ("configure", "build", "initialize", "finish", "lower")
KEY_PREFIX = "base_model.model."
"""What PEFT puts before the name of a tensor on disk."""


@attrs.frozen(kw_only=True)
class Traits:
    """What a method promises. ``adapterkit check`` holds it to every word, and the core refuses what is not promised.

    Attributes:
        identity_start: A fresh adapter changes no bit of any answer.
        stackable: It acts beside a second adapter of its kind, and their order does not matter.
        quantized_base: It acts on a base whose weights are 4-bit or 8-bit.
        recomputable: It trains with ``gradient_checkpointing``, which runs its forward pass twice.
        effects: The names of the effects that ``lower`` gives; none says that the method acts through its own layers.
    """

    identity_start: bool = True
    stackable: bool = True
    quantized_base: bool = True
    recomputable: bool = True
    effects: tuple[str, ...] = ()


@attrs.frozen(eq=False)
class Method:
    """A way to adapt a base.

    Attributes:
        name: What users write in ``method=``; lower-case with underscores. One with a colon, such as ``peft:ia3``, is a bridge to
            another library, and gives way to others where a file of PEFT's does not say which it is.
        config: A frozen attrs class; its fields are the method's options in Python, on the command line and in files.
        summary: One line for listings.
        traits: What it promises.
        defaults: Training options that suit this method better than the general ones, such as ``learning_rate``.
        peft_type: The name that PEFT gives to this method, when its files are PEFT's; else empty.
    """

    name: str
    config: type
    summary: str = attrs.field(default="", kw_only=True)
    traits: Traits = attrs.field(factory=Traits, kw_only=True)
    defaults: Mapping[str, Any] = attrs.field(factory=dict, kw_only=True)
    peft_type: str = attrs.field(default="", kw_only=True)

    # -- operations: the life of an adapter, in order -----------------------------------------------------------------

    def configure(self, config: Any, sites: Sequence[Site]) -> Any:  # noqa: ARG002 - the default keeps everything
        """The configuration with everything decided that depends on the base, such as ``"all-linear"``.

        Raises:
            TargetError: The configuration names sites that this base does not have.
        """
        return config

    def build(self, config: Any, sites: Sequence[Site]) -> Mapping[str, nn.Module]:
        """A fresh layer for each site that the configuration names, by site name.

        At a layer of the base, ``forward(x, y)`` takes its input and output and returns what replaces the output. At the
        site ``input``, ``tokens()`` returns the embeddings, ``(n, hidden_size)``, of n tokens before the sequence.

        It is also called on the meta device, to learn which tensors, of which shapes, an adapter file must hold.
        """
        raise NotImplementedError(f"method {self.name!r} does not say how to build its layers")

    def initialize(self, config: Any, layers: Mapping[str, nn.Module], base: Base, examples: Sequence[Example]) -> None:
        """Set fresh layers from what ``build`` cannot see: the tokenizer, the base's answers, the training rows.

        Called once before training, on layers that are where they will be trained; the base is as it ever is.
        """

    def finish(self, config: Any, layers: Mapping[str, nn.Module]) -> tuple[Any, Mapping[str, nn.Module]]:
        """What is kept of trained layers, and the configuration from which ``build`` makes such layers again.

        For methods that train more than an adapter needs, or in another form.
        """
        return config, layers

    def lower(self, layers: Mapping[str, nn.Module]) -> Effects | None:  # noqa: ARG002
        """What the trained layers do, as effects by site name; None when it cannot be said so.

        What cannot be lowered acts through its own layers, row by row of the batch.
        """
        return None

    # -- algebra without a base ---------------------------------------------------------------------------------------

    def effects(self, config: Any, tensors: Mapping[str, Tensor]) -> Effects | None:  # noqa: ARG002
        """What an adapter does, of its configuration and its tensors alone: what ``lower`` says of layers that hold them.

        At an embedding, effects say ``embedding=True``. A site that has no tensors of its own, since it shares its weight with
        another, is left out: on a base that has such a one, ``build`` makes its layer again.

        None when it depends on the base's weights, or cannot be said as effects.

        Raises:
            ValueError: The tensors, which may be a stranger's, are not those of such a configuration.
        """
        return None

    def express(self, effects: Effects) -> tuple[Any, Mapping[str, Tensor]] | None:  # noqa: ARG002
        """The inverse of :meth:`effects`: resolved configuration and tensors of an adapter of this method that does exactly this.

        None when this method has no such adapter.
        """
        return None

    # -- training -----------------------------------------------------------------------------------------------------

    def base_options(self, config: Any) -> Mapping[str, Any]:  # noqa: ARG002
        """What the base must be loaded with for training: ``quantize``, and beside it ``double_quant``; mostly nothing.

        A method that answers may have options of these names; otherwise they are the base's.
        """
        return {}

    def learning_rate_factor(self, config: Any, name: str) -> float:  # noqa: ARG002
        """What the learning rate of the parameter ``"<site>.<name in the layer>"`` is multiplied by."""
        return 1.0

    # -- files --------------------------------------------------------------------------------------------------------

    def to_peft(self, config: Any) -> dict[str, Any] | None:  # noqa: ARG002
        """The fields of PEFT's ``adapter_config.json`` that say the same; None when PEFT has no such method."""
        return None

    def from_peft(self, values: Mapping[str, Any]) -> Any:  # noqa: ARG002
        """The inverse of :meth:`to_peft`.

        Raises:
            ValueError: The file asks for something that this method does not do.
        """
        raise ValueError(f"method {self.name!r} has no PEFT form")

    def to_file(self, config: Any, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:  # noqa: ARG002
        """The tensors ``"<site>.<name in the layer>"`` by what they are called on disk: PEFT's names, where it has some."""
        return {KEY_PREFIX + name: tensor for name, tensor in tensors.items()}

    def from_file(self, config: Any, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:  # noqa: ARG002
        """The inverse of :meth:`to_file`.

        Raises:
            ValueError: No tensor of this method is called so.
        """
        strange = [key for key in tensors if not key.startswith(KEY_PREFIX)]
        if strange:
            raise ValueError(f"tensor {strange[0]!r:.200} is not named as PEFT does: {KEY_PREFIX}<layer>.<part>")
        return {key.removeprefix(KEY_PREFIX): tensor for key, tensor in tensors.items()}
