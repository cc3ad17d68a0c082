"""Plans a run: memory, time and money by method, and what would fit."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import attrs

from adapterkit.config import option_names
from adapterkit.contracts import TrainOptions
from adapterkit.errors import AdapterkitError, ConfigError
from adapterkit.registry import default_registry
from adapterkit.train.options import split_options

from .advice import Situation, advise
from .calibration import measurements
from .counting import rows_of
from .devices import find_device
from .limits import Curve
from .memory import memory_of
from .plan import Estimate, Plan
from .rehearsal import Row
from .rehearsals import Rehearsals
from .skeleton import BaseShape
from .speed import seconds_of_pass, seconds_of_update

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from adapterkit.contracts import Method
    from adapterkit.registry import Registry

    from .calibration import Calibration
    from .devices import Device
    from .plan import Rows
    from .rehearsal import Step

__all__ = ["plan"]

COMPARED = ("lora", "qlora", "prompt_tuning", "full")
"""The methods that are planned for unless others are named: those of them that are installed."""
SPARE = 0.03
"""So much of the device's memory is left for what nobody knows of, such as a desktop."""
LADDER: tuple[dict[str, Any], ...] = (
    {"gradient_checkpointing": False, "tokens_per_pass": None, "activation_offload": False},
    {"gradient_checkpointing": True, "tokens_per_pass": None, "activation_offload": False},
    {"gradient_checkpointing": True, "tokens_per_pass": 8192, "activation_offload": False},
    {"gradient_checkpointing": True, "tokens_per_pass": 4096, "activation_offload": False},
    {"gradient_checkpointing": True, "tokens_per_pass": 2048, "activation_offload": False},
    {"gradient_checkpointing": True, "tokens_per_pass": 2048, "activation_offload": True},
)
"""What may be done about memory, the fastest first: small passes start as many kernels as large ones, and do less with each."""
MOST_ROWS, MOST_TOKENS, UNIT = 1024, 2**20, 64
"""The most rows and tokens that are looked at, and in steps of how many tokens a length is."""


def plan(
    base: Any,
    *,
    method: str | None = None,
    methods: Sequence[str] | None = None,
    data: Any = None,
    rows: int | None = None,
    columns: Mapping[str, str] | None = None,
    format: str | None = None,  # noqa: A002 - the word that users know
    device: str | None = None,
    price_per_hour: float | None = None,
    goal: str | None = None,
    sensitive: bool = False,
    latency: float | None = None,
    dtype: str = "auto",
    limits: bool = True,
    registry: Registry | None = None,
    progress: Callable[[str], None] = lambda _: None,
    **options: Any,
) -> Plan:
    """What training will take, by method. No weight is loaded: a step is rehearsed on tensors that have shapes and no numbers.

    Args:
        base: A :class:`~adapterkit.Base`, a folder, a Hub id or a model object.
        method: The method that you mean to use; ``options`` are its own and the run's. By default, the first of ``methods``.
        methods: Which methods to compare; by default ``method`` alone, or without one those that are usually weighed against
            each other.
        data: The rows; they are read, and counted with the base's tokenizer.
        rows: How many rows there will be, where there are none yet: each of ``max_length`` tokens, all trained.
        columns: The data's column for each field of its format.
        format: The data's format, when the first row would not tell.
        device: A device's name (``"4090"``), a size (``"24GB"``), or ``"cpu"``; what is here, by default.
        price_per_hour: US dollars; by default what :mod:`~adapterkit.planning.devices` says.
        goal: What the adapter is for, for advice: see :func:`~adapterkit.planning.advise`.
        sensitive: For advice: whether the data must not be seen by all who may ask.
        latency: For advice: how many milliseconds may be added to an answer.
        dtype: What an unquantized base would be in.
        limits: Whether to look for the largest batch and the longest row that fit, which takes most of the time.
        registry: The plugins; by default the base's, or all that are installed.
        progress: Told which method is being looked at.
        **options: Options of the method and the run, as :meth:`~adapterkit.Base.train` takes them.

    Raises:
        BaseLoadError: There is no such base.
        ConfigError: Options that neither the method nor the run knows.
        DataError: The data cannot be read.
        UnknownNameError: No device or method is called so.
    """
    registry = registry or getattr(base, "registry", None) or default_registry()
    place = find_device(device)
    installed = {one.name for one in registry.methods()}
    named = list(methods or ([method] if method else [one for one in COMPARED if one in installed]))
    if not named:
        raise ConfigError("plan does not fit", [f"method: none of {', '.join(COMPARED)} is installed; name one"])
    method = method or named[0]
    _, wanted = split_options(registry.method(method), options)  # what is wrong is said before anything is read
    shape = BaseShape.read(base, dtype=dtype, on_cpu=place.is_cpu)
    found = rows_of(base, shape, data, rows, wanted.max_length, registry, columns=columns, format=format)
    planner = _Planner(
        rehearsals=Rehearsals(shape, registry, fused=not place.is_cpu),
        device=place,
        calibration=measurements().fitted,
        rows=found,
        price=price_per_hour if price_per_hour is not None else place.price,
        limits=limits,
    )
    estimates = {}
    for name in dict.fromkeys(named):
        progress(name)
        estimates[name] = planner.estimate(registry.method(name), options, strict=name == method)
    made = Plan(
        base=shape.name,
        parameters=planner.rehearsals.parameters(),
        device=place,
        price=planner.price,
        rows=found,
        batch_size=wanted.batch_size,
        length=planner.length(wanted),
        method=method,
        estimates=estimates,
    )
    if goal is None:
        return made
    return attrs.evolve(made, advice=advise(Situation.of(made, goal=goal, sensitive=sensitive, latency=latency)))


@attrs.frozen(kw_only=True)
class _Planner:
    """Estimates one method after the other."""

    rehearsals: Rehearsals
    device: Device
    calibration: Calibration
    rows: Rows | None
    price: float | None
    limits: bool

    def length(self, options: TrainOptions) -> int:
        """Tokens of the longest row."""
        return self.rows.longest if self.rows is not None else options.max_length

    @property
    def room(self) -> float:
        """The bytes that a run may take."""
        return self.device.memory * (1 - SPARE)

    def estimate(self, method: Method, given: Mapping[str, Any], *, strict: bool) -> Estimate:
        """What one method takes; why it cannot be done, unless ``strict``, which raises that."""
        mine = {name: value for name, value in given.items() if strict or name in _options_of(method)}
        try:
            return self._estimate(method, mine)
        except AdapterkitError as error:
            if strict:
                raise
            lines = error.problems if isinstance(error, ConfigError) else (str(error),)
            return Estimate(method=method.name, reason="; ".join(lines))

    def _estimate(self, method: Method, given: dict[str, Any]) -> Estimate:
        config, asked = split_options(method, given)
        asked = attrs.evolve(asked, bf16=self.device.bf16 if asked.bf16 is None else asked.bf16)
        batch = [self._row(self.length(asked))] * asked.batch_size
        for changes in self._ladder(method, given, asked.batch_size * self.length(asked)):
            options = attrs.evolve(asked, **changes)
            step = self.rehearsals.step(method, config, options, batch)
            memory = memory_of(step, self.device, self.calibration)
            if memory.total <= self.room:
                break
        speed = self._speed(method, config, options, step)
        seconds = self._seconds(options, speed)
        return Estimate(
            method=method.name,
            options=self._to_pass(method, options, given),
            memory=memory,
            fits=memory.total <= self.room,
            parameters=round(step.parameters),
            rank=getattr(config, "rank", None),
            tokens_per_second=speed,
            seconds=seconds,
            cost=None if seconds is None or self.price is None else seconds / 3600 * self.price,
            largest_batch=self._largest_batch(method, config, options) if self.limits else None,
            longest_context=self._longest_context(method, config, options, given) if self.limits else None,
        )

    def _ladder(self, method: Method, given: Mapping[str, Any], tokens: int) -> list[dict[str, Any]]:
        """The changes that may be tried: what was asked for stays, and only what is possible and changes something."""
        steps = [
            {name: value for name, value in step.items() if name not in given}
            for step in LADDER
            if (method.traits.recomputable or not step["gradient_checkpointing"])
            and (step["tokens_per_pass"] is None or step["tokens_per_pass"] < tokens)
            and not (
                step["activation_offload"] and (self.device.is_cpu or not given.get("gradient_checkpointing", True))
            )
        ]
        return [step for number, step in enumerate(steps) if step not in steps[:number]]

    def _row(self, length: int) -> Row:
        part = 1.0 if self.rows is None else self.rows.trained / self.rows.tokens
        return Row(length, max(1, min(length - 1, math.ceil(length * part))))

    def _total(self, step: Step) -> float:
        return memory_of(step, self.device, self.calibration).total

    def _largest_batch(self, method: Method, config: Any, options: TrainOptions) -> int:
        whole, length = attrs.evolve(options, tokens_per_pass=None), self.length(options)

        def step(rows: int) -> Step:
            return self.rehearsals.step(method, config, whole, [self._row(length)] * rows)

        return Curve(step, length, self.rehearsals.shape.vocabulary).largest(self._total, self.room, MOST_ROWS)

    def _longest_context(self, method: Method, config: Any, options: TrainOptions, given: Mapping[str, Any]) -> int:
        lean = attrs.evolve(options, **{**self._ladder(method, given, MOST_TOKENS)[-1], "tokens_per_pass": None})
        known = getattr(self.rehearsals.shape.config.get_text_config(), "max_position_embeddings", None) or MOST_TOKENS

        def step(units: int) -> Step:
            return self.rehearsals.step(method, config, lean, [self._row(units * UNIT)])

        curve = Curve(step, UNIT, self.rehearsals.shape.vocabulary)
        return UNIT * curve.largest(self._total, self.room, max(1, known // UNIT))

    def _speed(self, method: Method, config: Any, options: TrainOptions, step: Step) -> float | None:
        """Tokens a second of batches of ordinary rows."""
        mean = self.length(options) if self.rows is None else self.rows.mean
        if mean != self.length(options):
            step = self.rehearsals.step(method, config, options, [self._row(mean)] * options.batch_size)
        once = seconds_of_pass(step, self.device, self.calibration)
        if once is None:
            return None
        took = once * step.passes + seconds_of_update(step, self.device, self.calibration)
        return options.batch_size * mean / took

    def _seconds(self, options: TrainOptions, speed: float | None) -> float | None:
        if self.rows is None or speed is None:
            return None
        tokens = self.rows.tokens * options.epochs
        if options.max_steps is not None:
            tokens = options.max_steps * options.batch_size * options.gradient_accumulation_steps * self.rows.mean
        return tokens / speed

    def _to_pass(self, method: Method, options: TrainOptions, given: Mapping[str, Any]) -> dict[str, Any]:
        """What differs from what ``train`` would do by itself."""
        usual = {**{field.name: field.default for field in attrs.fields(TrainOptions)}, **method.defaults, **given}
        chosen = {name: getattr(options, name) for name in LADDER[0]}
        return {name: value for name, value in chosen.items() if value != usual[name]}


def _options_of(method: Method) -> set[str]:
    return {*option_names(method.config), *option_names(TrainOptions)}
