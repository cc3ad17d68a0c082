"""From trained layers to an adapter, and what is said of the run."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import attrs

from adapterkit.adapter import Adapter
from adapterkit.artifact.evaluated import with_result
from adapterkit.artifact.writer import replace_manifest
from adapterkit.errors import ArtifactError
from adapterkit.resident import flatten, load_state

from .manifest import manifest_of, summary_of
from .record import peak_memory
from .telling import tell, tell_again

if TYPE_CHECKING:
    from collections.abc import Mapping

    from adapterkit.base import Base

    from .preparing import Prepared

__all__ = ["conclude", "fail", "give_up"]

logger = logging.getLogger("adapterkit")


def conclude(home: Base, one: Prepared) -> Adapter:
    """The adapter of a run that has ended: resident on ``home``, and in the run's folder with what is said of it."""
    training, base = one.training, one.base
    watch = training.watch
    if watch.kept is not None:
        load_state(one.layers, watch.kept)
    with training.random.drawn():
        config, kept = base.registry.call("finish", one.method, config=one.config, layers=dict(one.layers.items()))
    adapter = Adapter(one.method.name, config, flatten(kept), training.processes.from_main(manifest_of(one)))
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
    scores = tell(one, adapter, output) if output and training.processes.main else None
    adapter = _with_scores(one, adapter, training.processes.from_main(summary_of(one, scores) if scores else None))
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


def _with_scores(one: Prepared, adapter: Adapter, summary: Mapping[str, Any] | None) -> Adapter:
    """The adapter with the scores of its report, in the run's folder too; its weights are not written again."""
    if summary is None:
        return adapter
    manifest = attrs.evolve(adapter.manifest, evaluation=with_result(adapter.manifest.evaluation, summary))
    output = one.training.run.output
    if output and one.training.processes.main:
        try:
            replace_manifest(output / "adapter", manifest)
        except ArtifactError:
            logger.exception("the adapter is saved, but without its scores")
    return attrs.evolve(adapter, manifest=manifest)
