"""One training step without a number in it: the loop's own code on tensors that have shapes only, and what it took."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import attrs
import torch

from adapterkit.contracts import Example
from adapterkit.data.batching import collate, in_passes
from adapterkit.data.packing import pack
from adapterkit.errors import AdapterkitError, ConfigError
from adapterkit.forward import BaseForward
from adapterkit.head import MOST_LOGITS
from adapterkit.resident import build_layers, check_method
from adapterkit.runtime import Runtime
from adapterkit.train.batches import MOST_PADDING, beginning
from adapterkit.train.forward import AdapterInTraining, recomputing
from adapterkit.train.offload import LEAST_BYTES

from .heading import RehearsedForward
from .meter import Meter, Operation, Peak, rounded
from .standins import METER

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch import Tensor, nn

    from adapterkit.contracts import Method, TrainOptions
    from adapterkit.registry import Registry

    from .skeleton import Skeleton

__all__ = ["Row", "Stage", "Step"]

CHECK = "check"
"""The phase before the first step, in which it is tried whether the model can be packed."""
MOST_PASSES = 2
"""From the second pass on, gradients are there already; a third takes no more."""
ANYTHING = (RuntimeError, NotImplementedError, TypeError, ValueError, AttributeError)
"""What a layer of a stranger's may raise when a tensor has no numbers."""
STEP_BYTES = 512
"""AdamW counts its steps on the device, once for each tensor."""


@attrs.frozen
class Row:
    """A row of a batch: how many tokens it has, and how many of them are trained."""

    length: int
    trained: int


@attrs.frozen(kw_only=True)
class Step:
    """What a training step takes.

    Attributes:
        weights: Bytes of the base by what they are stored in.
        adapter: Bytes of what is trained.
        parameters: How many numbers that is.
        optimizer: Bytes of AdamW's state.
        peaks: The most that was held besides, by phase.
        kept: What the forward pass leaves for the backward pass, by phase of the latter.
        work: How often each operation was done; of the first pass alone where a step has several.
        launches: How many kernels that were.
        passes: How many passes the step has.
    """

    weights: Mapping[str, float]
    adapter: float
    parameters: float
    optimizer: float
    peaks: Mapping[str, Peak]
    kept: Mapping[str, float]
    work: Mapping[Operation, float]
    launches: float
    passes: int

    @classmethod
    def through(cls, known: Sequence[tuple[float, Step]], at: float) -> Step:
        """The step at ``at`` blocks, rows or tokens, from steps at other numbers of them.

        All that a step takes is a polynomial of these: evenly in blocks, which are alike; with a square of the tokens at most,
        where a mask is. Two steps give a line, three a parabola (Lagrange's formula).
        """
        parts = [math.prod((at - other) / (here - other) for other, _ in known if other != here) for here, _ in known]
        steps = [step for _, step in known]

        def mixed(values: Iterable[float]) -> float:
            return sum(part * value for part, value in zip(parts, values, strict=True))

        def each(name: str) -> dict[Any, float]:
            tables: list[Mapping[Any, float]] = [getattr(step, name) for step in steps]
            return {
                key: mixed(table.get(key, 0.0) for table in tables)
                for key in {key: None for table in tables for key in table}
            }

        return cls(
            weights=each("weights"),
            adapter=mixed(step.adapter for step in steps),
            parameters=mixed(step.parameters for step in steps),
            optimizer=mixed(step.optimizer for step in steps),
            peaks={
                name: Peak(
                    mixed(step.peaks[name].held for step in steps), mixed(step.peaks[name].gradients for step in steps)
                )
                for name in steps[0].peaks
            },
            kept=each("kept"),
            work=each("work"),
            launches=mixed(step.launches for step in steps),
            passes=steps[-1].passes,
        )


class Stage:
    """A base without numbers and a method's layers on it, ready for any number of rehearsals.

    Args:
        base: The base.
        method: The method.
        config: Its configuration, as the user gave it.
        registry: The plugins.
    """

    def __init__(self, base: Skeleton, method: Method, config: Any, registry: Registry) -> None:
        self._base, self._method = base, method
        self._objective = registry.objective("sft")
        with base.mode:
            check_method(method, base.sites)
            try:
                config = registry.call("configure", method, config=config, sites=base.sites)
                self._layers = build_layers(registry, method, config, base.sites)
            except AdapterkitError:
                raise
            except ANYTHING as error:
                raise _cannot(method, error) from error

    def rehearse(self, rows: Sequence[Row], options: TrainOptions, *, packed: bool | None = None) -> Step:
        """Take one step on ``rows``.

        Args:
            rows: The rows of a batch.
            options: The run's options.
            packed: Whether several rows are in one sequence; by default as a run would have it, as far as that is known before.

        Raises:
            ConfigError: The method does something that needs numbers, or does not go with the options.
        """
        if options.gradient_checkpointing and not self._method.traits.recomputable:
            reason = "gradient_checkpointing: the method does not act when activations are computed again"
            raise ConfigError(f"options of method {self._method.name!r} do not fit", [reason])
        base, parameters = self._base, [one for one in self._layers.parameters() if one.requires_grad]
        with base.mode:
            runtime = Runtime(base.model, base.sites, owner=self)
            meter = Meter([*base.tensors, *self._layers.parameters(), *self._layers.buffers()])
            handles = [
                one.register_post_accumulate_grad_hook(_counted(meter))  # type: ignore[no-untyped-call]
                for one in parameters
            ]
            token = METER.set(meter)
            try:
                passes, kept, work, launches = self._take(runtime, meter, rows, options, packed=packed)
            except AdapterkitError:
                raise
            except ANYTHING as error:
                raise _cannot(self._method, error) from error
            finally:
                METER.reset(token)
                runtime.remove()
                for handle in handles:
                    handle.remove()
                for one in parameters:
                    one.grad = None
        size = sum(rounded(one.nbytes) for one in parameters)
        return Step(
            weights=base.bytes_by_dtype(),
            adapter=sum(rounded(one.nbytes) for one in (*self._layers.parameters(), *self._layers.buffers())),
            parameters=sum(one.numel() for one in parameters),
            optimizer=2 * size + STEP_BYTES * len(parameters),
            peaks=meter.peaks,
            kept=kept,
            work=work,
            launches=launches,
            passes=passes,
        )

    def _take(
        self, runtime: Runtime, meter: Meter, rows: Sequence[Row], options: TrainOptions, *, packed: bool | None
    ) -> tuple[int, Any, Any, int]:
        base = self._base
        plain = attrs.evolve(options, activation_offload=False, bf16=bool(options.bf16))
        module = AdapterInTraining(base.model, self._method.name, self._layers, runtime, self._objective, plain).train()
        if not any(site.is_head and site.name in module.plan for site in base.sites):
            module.forward_of = RehearsedForward(base.model, runtime.checkpoint_contexts, on_gpu=base.fused)
        tried = options.packing and not module.prefix_length and _keeps_apart(base, rows)
        examples = [_example(row).after(module.virtual_tokens()) for row in rows]
        dtype = base.dtype
        recomputation = recomputing(base.model, runtime) if options.gradient_checkpointing else contextlib.nullcontext()
        offloading = _offloading(module, base.tensors) if options.activation_offload else contextlib.nullcontext()
        parts = in_passes(range(len(rows)), [len(one.input_ids) for one in examples], options.tokens_per_pass)
        kept: dict[str, float] = {}
        work: Counter[Operation] = Counter()
        launches = 0
        with meter, recomputation:
            if tried:
                meter.enter(CHECK)
                _check_packing(base.model, examples, meter, dtype)
                meter.work.clear()
                meter.launches = 0
            for number, part in enumerate(parts[:MOST_PASSES]):
                meter.enter(f"forward {number + 1}")
                meter.chosen = sum(rows[row].trained for row in part)
                mine = [examples[row] for row in part]
                packs = tried and not _fills(mine) if packed is None else packed
                batch = pack(mine, 0, "cpu", dtype) if packs else collate(mine, 0, "cpu")
                with offloading:
                    loss = module(batch).total / meter.chosen
                kept[f"backward {number + 1}"] = float(meter.held - meter.gradients)
                meter.enter(f"backward {number + 1}")
                torch.autograd.backward(loss)
                del batch, loss
                if not number:
                    work, launches = Counter(meter.work), meter.launches
        return len(parts), kept, work, launches


def _example(row: Row) -> Example:
    return Example((1,) * row.length, (-100,) * (row.length - row.trained) + (1,) * row.trained)


def _counted(meter: Meter) -> Any:
    return lambda parameter: meter.is_gradient(parameter.grad)


def _keeps_apart(base: Skeleton, rows: Sequence[Row]) -> bool:
    """Whether rows may be packed, as far as a configuration tells; a run tries it."""
    config = base.model.config.get_text_config()
    windows = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
    longest = max(row.length for row in rows)
    return base.takes_masks and not any(window is not None and window < longest for window in windows)


def _fills(examples: Sequence[Example]) -> bool:
    """Whether rows fill a tensor as they are, so that they are not packed."""
    lengths = [len(one.input_ids) for one in examples]
    return max(lengths) * len(lengths) <= (1.0 + MOST_PADDING) * sum(lengths)


@torch.no_grad()
def _check_packing(model: Any, examples: Sequence[Example], meter: Meter, dtype: torch.dtype) -> None:
    """What :func:`adapterkit.train.batches.keeps_rows_apart` holds at once: logits of two rows, together and each alone."""
    several = (*examples, *examples)[:64]  # there are more rows than one
    tried = [beginning(one) for one in sorted(several, key=lambda one: -len(one.input_ids))[-2:]]
    most = max(1, MOST_LOGITS // int(model.config.get_text_config().vocab_size) // len(tried))
    forward = BaseForward(model)  # nothing is kept for a backward pass

    def logits(batch: Any, places: list[int]) -> Tensor:
        meter.chosen = sum(places)
        return forward(batch, torch.ones(1, batch["input_ids"].shape[1], dtype=torch.bool)).float()

    places = [min(len(one.input_ids), most) for one in tried]
    together = logits(pack(tried, 0, "cpu", dtype, sequences=1), places)
    alone = [logits(collate([one], 0, "cpu"), [count]) for one, count in zip(tried, places, strict=True)]
    expected = torch.cat(alone)
    ((together - expected).norm(dim=-1) / expected.norm(dim=-1)).max()


def _offloading(module: nn.Module, weights: Sequence[Tensor]) -> torch.autograd.graph.saved_tensors_hooks:
    """What :func:`adapterkit.train.offload.offloading` does to the device's memory: what is kept is gone until it is asked for."""
    stay = {one.untyped_storage()._cdata for one in (*weights, *module.parameters())}  # noqa: SLF001 - fake tensors have no address

    def pack_up(tensor: Tensor) -> Any:
        if tensor.nbytes < LEAST_BYTES or tensor.untyped_storage()._cdata in stay:  # noqa: SLF001
            return tensor
        return tuple(tensor.shape), tensor.dtype

    def unpack(packed: Any) -> Tensor:
        return packed if isinstance(packed, torch.Tensor) else torch.empty(packed[0], dtype=packed[1]).zero_()

    return torch.autograd.graph.saved_tensors_hooks(pack_up, unpack)


def _cannot(method: Method, error: Exception) -> ConfigError:
    lines = str(error).strip().splitlines()
    reason = f"its layers cannot be tried without numbers ({type(error).__name__}: {lines[0] if lines else ''})"
    return ConfigError(f"method {method.name!r} cannot be planned for", [reason])
