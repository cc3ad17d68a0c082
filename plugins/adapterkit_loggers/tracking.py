"""Records for trackers of experiments: Weights & Biases, and trackio, which has the same interface."""

from __future__ import annotations

import contextlib
import contextvars
import os
import sys
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from adapterkit import Run

__all__ = ["open_trackio", "open_wandb"]

PROJECT = "adapterkit"
"""The project of runs for which the environment names none."""


@attrs.frozen(eq=False)
class Tracked:
    """A run as a tracker has it.

    Attributes:
        tracked: The tracker's own run.
        finish: Ends it, told how the run ended.
    """

    tracked: Any
    finish: Callable[[str], None]

    def log(self, record: Mapping[str, Any]) -> None:
        """Every number under the name that it has in ``log.jsonl``."""
        values = {name: value for name, value in record.items() if name != "step"}
        self.tracked.log(values, step=record["step"])

    def close(self, status: str) -> None:
        """The run is over."""
        self.finish(status)


def open_wandb(run: Run) -> Tracked:
    """A run in the project ``WANDB_PROJECT``; wandb's other variables, such as ``WANDB_MODE=offline``, are its own affair."""
    import wandb

    tracked = wandb.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        name=_name(run),
        config=_config(run),
        dir=str(run.output) if run.output else None,
        reinit="create_new",  # jobs that share a pass have a run each
    )

    def finish(status: str) -> None:
        tracked.summary["status"] = status
        tracked.finish(exit_code=int(status in ("interrupted", "failed")))

    return Tracked(tracked, finish)


def open_trackio(run: Run) -> Tracked:
    """A run in the project ``TRACKIO_PROJECT``, on this machine or where trackio's own variables say."""
    import trackio

    def begin() -> Any:
        project = os.environ.get("TRACKIO_PROJECT", PROJECT)
        return trackio.init(project=project, name=_name(run), config=_config(run), embed=False)

    def finish(status: str) -> None:  # noqa: ARG001 - trackio keeps no status
        with contextlib.redirect_stdout(sys.stderr):
            tracked.finish()

    with contextlib.redirect_stdout(sys.stderr):  # what trackio says is no data
        # in a context of its own: trackio ends the run that it finds in this one, and jobs that share a pass have a run each
        tracked = contextvars.copy_context().run(begin)

    return Tracked(tracked, finish)


def _name(run: Run) -> str | None:
    """What the run is called there; None leaves it to the tracker."""
    return run.name or (run.output.name if run.output else None)


def _config(run: Run) -> dict[str, Any]:
    """What the run was asked for."""
    return {"method": run.method, **run.config, **attrs.asdict(run.options), "steps": run.steps}
