"""From trained layers to an adapter, and what is said of the run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapterkit.adapter import Adapter
from adapterkit.artifact.manifest import Manifest
from adapterkit.config import to_dict
from adapterkit.resident import flatten, load_state

from .identity import summary, versions
from .record import peak_memory
from .telling import tell, tell_again

if TYPE_CHECKING:
    from adapterkit.base import Base

    from .preparing import Prepared

__all__ = ["conclude", "fail", "give_up"]


def conclude(home: Base, one: Prepared) -> Adapter:
    """The adapter of a run that has ended: resident on ``home``, and in the run's folder with what is said of it."""
    training, base = one.training, one.base
    watch = training.watch
    if watch.kept is not None:
        load_state(one.layers, watch.kept)
    with training.random.drawn():
        config, kept = base.registry.call("finish", one.method, config=one.config, layers=dict(one.layers.items()))
    adapter = Adapter(one.method.name, config, flatten(kept), training.processes.from_main(_manifest(one)))
    if not training.processes.lockstep:  # else the base is in pieces, and given up
        home.load(adapter)
    output = training.run.output
    if output and training.processes.main:
        adapter.save(output / "adapter", registry=base.registry)
    training.processes.check_same({"the adapter": adapter.digest})
    status = "stopped early" if watch.stop else "finished"
    one.record.end(status, watch.stop or None, **progress(one), best_step=watch.kept_step, adapter=adapter.digest)
    if training.checkpoints:  # only now: the record is what says that the run need not be gone on with
        training.checkpoints.clear()
    training.log.close(status)
    if output and training.processes.main:
        tell(one, adapter, output)
    if training.processes.main:
        base.registry.notify("adapterkit_train_finished", run=training.run, adapter=adapter)
    return adapter


def fail(one: Prepared, error: BaseException) -> None:
    """Note that a run did not reach its end."""
    status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
    one.record.end(status, str(error) or type(error).__name__, **progress(one))
    one.training.log.close(status)
    output = one.training.run.output
    if output and one.training.processes.main and one.asked.report:
        tell_again(output)
    if one.training.processes.main:
        one.base.registry.notify("adapterkit_train_failed", run=one.training.run, error=error)


def give_up(one: Prepared, reason: str) -> None:
    """Note that a run goes no further, though nothing went wrong; no adapter is made of it."""
    one.record.end("stopped early", reason, **progress(one))
    one.training.log.close("stopped early")
    if one.training.checkpoints:
        one.training.checkpoints.clear()


def progress(one: Prepared) -> dict[str, Any]:
    """How far a run has come and what it took."""
    training = one.training
    return {
        "last_step": training.step,
        "tokens": training.tokens,
        "seconds": round(training.seconds, 3),
        "peak_memory": peak_memory(one.base.device),
    }


def _manifest(one: Prepared) -> Manifest:
    """What is worth knowing of the run, as far as it would be the same the next time."""
    base, run, log = one.base, one.training.run, one.training.log
    kept = one.training.watch.kept_step
    training = {
        "objective": one.asked.objective,
        "options": to_dict(run.options),
        "steps": one.training.step if kept is None else kept,
        **({"quantize": base.quantized} if base.quantized else {}),
        **{name: value for name, value in summary(one.rows).items() if value is not None},
    }
    # of the state that became the adapter, and not of steps that were taken after it
    losses = {name: log.last(name, until=kept) for name in ("loss", "eval_loss", "general_loss")}
    return Manifest(
        base=base.reference,
        plugin=base.registry.provider(one.method),
        training={**training, **{name: value for name, value in losses.items() if value is not None}},
        versions=versions(),
    )
