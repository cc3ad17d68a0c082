"""Adapters in training that share the passes of their base."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapterkit.errors import TrainingError

from .loop import learn

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from .training import Pass, Training

__all__ = ["Fleet"]


class Fleet:
    """Lets each training ask for a pass, has all of them made at once, and tells each its loss; each has a clock of its own.

    Args:
        trainings: One, or several on one base.
        work: Makes passes and gives their losses.
        interrupted: Holds something once the run is to end after the step under way.

    Attributes:
        failed: What went wrong with trainings that did not reach their end.
        stopped: Those that an interruption has ended.
    """

    def __init__(
        self,
        trainings: Sequence[Training],
        work: Callable[[Sequence[Pass]], list[float]],
        interrupted: list[bool] | None = None,
    ) -> None:
        self.failed: dict[Training, TrainingError] = {}
        self.stopped: list[Training] = []
        self._work = work
        self._learning: dict[Training, Generator[Pass, float, None]] = {
            one: learn(one, interrupted=interrupted) for one in trainings
        }
        self._asked: dict[Training, Pass] = {}
        for one in trainings:
            self._go_on(one, None)

    def run(self, until: Callable[[Training], int] | None = None) -> None:
        """Go on until each training has ended, or has taken as many steps as ``until`` says and asks for the next one."""
        while asked := [
            one for one in self._asked.values() if until is None or one.training.step < until(one.training)
        ]:
            for one, loss in zip(asked, self._work(asked), strict=True):
                self._go_on(one.training, loss)

    def give_up(self, training: Training) -> None:
        """Take no further step of a training, where it is one of these."""
        self._asked.pop(training, None)
        if training in self._learning:
            self._learning.pop(training).close()

    def _go_on(self, training: Training, loss: float | None) -> None:
        self._asked.pop(training, None)
        try:
            self._asked[training] = self._learning[training].send(loss)  # type: ignore[arg-type]
        except StopIteration:
            pass
        except TrainingError as error:
            self.failed[training] = error
        except KeyboardInterrupt:
            self.stopped.append(training)
