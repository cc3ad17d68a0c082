"""Sees whether a run goes well: what is worth keeping, when to stop, and when it has gone wrong."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import attrs

from adapterkit.errors import TrainingError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from adapterkit.contracts import TrainOptions

__all__ = ["Watch", "check_finite"]

SMOOTHING = 0.9
"""How much of the smoothed loss each step keeps."""
DIVERGED = (2.0, 1.0)
"""A smoothed loss beyond so many times its lowest value, and so much more, has left: 1.0 is a factor of e per token."""
STEPS_AWAY = 5
"""For good, when it stays there for so many steps: one hard row brings the smoothed loss there for two or three."""


@attrs.define(eq=False)
class Watch:
    """What has been seen of a run.

    Attributes:
        options: The run's.
        best: The lowest loss on held-out rows, and ``best_step`` where it was.
        waited: How many evaluations in a row were no better, by the threshold.
        general: The loss of the base alone on general text.
        smoothed: The training loss, smoothed, ``lowest`` its lowest value, and ``away`` for how many steps it has been far
            from that.
        kept: The layers' state that is to become the adapter; None for that of the last step.
        kept_step: The step it is of.
        stop: Why the run is to stop now; empty while it goes on.
    """

    options: TrainOptions
    best: float = math.inf
    best_step: int | None = None
    waited: int = 0
    general: float | None = None
    smoothed: float | None = None
    lowest: float = math.inf
    away: int = 0
    kept: dict[str, Tensor] | None = attrs.field(default=None, repr=False)
    kept_step: int | None = None
    stop: str = ""

    @property
    def keeps(self) -> bool:
        """Whether the adapter may be that of an earlier step than the last."""
        return bool(
            self.options.early_stopping_patience or self.options.load_best_model_at_end or self.options.max_forgetting
        )

    def see_step(self, step: int, loss: float) -> None:
        """Note a step's loss.

        Raises:
            TrainingError: The run has diverged.
        """
        self.smoothed = loss if self.smoothed is None else SMOOTHING * self.smoothed + (1 - SMOOTHING) * loss
        self.lowest = min(self.lowest, self.smoothed)
        times, more = DIVERGED
        self.away = self.away + 1 if self.smoothed > times * self.lowest + more else 0
        if self.away >= STEPS_AWAY:
            raise TrainingError(
                f"step {step}: training has diverged: the smoothed loss was {self.lowest:.3f} and is {self.smoothed:.3f}. Try a "
                f"lower learning_rate than {self.options.learning_rate:g}, or a longer warm-up"
            )

    def see_evaluation(self, step: int, losses: Mapping[str, float], state: Callable[[], dict[str, Tensor]]) -> None:
        """Note losses on held-out rows (``eval_loss``) and on general text (``general_loss``), and keep what is worth it."""
        general = losses.get("general_loss")
        if step == 0:
            self.general = general
            return
        better = self._improves(step, losses.get("eval_loss"))
        forgotten = self._forgotten(general)
        limit = self.options.max_forgetting
        if limit and forgotten > limit:
            self.stop = f"the perplexity of general text has risen by {forgotten:.1%}, beyond max_forgetting={limit:g}"
            if self.kept is None:
                self.stop += (
                    ", at the first evaluation already: the adapter is beyond it too; evaluate sooner (eval_steps)"
                )
        elif self.keeps and (better or not self._chooses):
            self.kept, self.kept_step = {name: one.detach().clone() for name, one in state().items()}, step
        patience = self.options.early_stopping_patience
        if patience and self.waited >= patience:
            self.stop = f"{patience} evaluations in a row did not lower the loss on held-out rows"

    @property
    def _chooses(self) -> bool:
        """Whether the loss on held-out rows decides what is kept."""
        return bool(self.options.early_stopping_patience or self.options.load_best_model_at_end)

    def _improves(self, step: int, loss: float | None) -> bool:
        if loss is None:
            return False
        self.waited = 0 if loss < self.best - self.options.early_stopping_threshold else self.waited + 1
        lowest = loss < self.best  # by however little: the threshold says how long to wait, not what to keep
        if lowest:
            self.best, self.best_step = loss, step
        return lowest

    def _forgotten(self, general: float | None) -> float:
        """By what part the perplexity of general text has risen."""
        if general is None or self.general is None:
            return 0.0
        return math.expm1(min(general - self.general, 700.0))

    def state(self) -> dict[str, Any]:
        """What of it is numbers, for a checkpoint."""
        names = ("best", "best_step", "waited", "general", "smoothed", "lowest", "away", "kept_step", "stop")
        return {name: _plain(getattr(self, name)) for name in names}

    def load_state(self, values: Mapping[str, Any], kept: dict[str, Tensor] | None) -> None:
        """Go on from where :meth:`state` was taken."""
        for name, value in values.items():
            setattr(self, name, math.inf if value == "inf" else value)
        self.kept = kept


def _plain(value: Any) -> Any:
    return "inf" if value == math.inf else value  # JSON has no infinity


def check_finite(step: int, loss: float, norm: float, culprits: Callable[[], str]) -> None:
    """Refuse a step whose gradient would spoil the adapter.

    Raises:
        TrainingError: Names the step, and the rows that alone give no number.
    """
    if not math.isfinite(loss) or not math.isfinite(norm):
        raise TrainingError(
            f"step {step}: the loss is {loss} and the gradient's norm {norm}; training stopped before this step. {culprits()}"
        )
