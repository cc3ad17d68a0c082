"""EleutherAI's lm-evaluation-harness on a base with an adapter; needs the extra ``adapterkit[lm-eval]``."""

from __future__ import annotations

import contextlib
import copy
import functools
import logging
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from adapterkit.errors import ConfigError, DataError, UnknownNameError

from .result import plain
from .scoring import check_adapter

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Sequence

    from adapterkit.base import Base
    from adapterkit.compose import Acting

__all__ = ["harness_model", "run_tasks"]


def harness_model(base: Base, adapter: Acting | None = None, *, batch_size: int = 64) -> Any:
    """What ``lm_eval.simple_evaluate(model=…)`` takes: this base, acting with ``adapter`` alone whatever is in use.

    Virtual tokens are put before each sequence, and what the harness counts is the same with them as without. The base's
    model and tokenizer are left as they are.

    Raises:
        ConfigError: lm-eval is not installed.
        SelectionError: ``adapter`` is no adapter.
    """
    check_adapter(adapter, "harness_model")
    return _model_class()(base, adapter, batch_size)


def run_tasks(
    base: Base,
    tasks: Sequence[str],
    *,
    adapter: Acting | None = None,
    folder: str | os.PathLike[str] | None = None,
    limit: int | None = None,
    batch_size: int = 64,
    apply_chat_template: bool = False,
    task_manager: Any = None,
    **options: Any,
) -> dict[str, dict[str, float | None]]:
    """Scores by task and name, as the harness has them: ``{"my_task": {"acc": 0.5, "acc_stderr": 0.1}}``.

    Args:
        base: The base.
        tasks: Names of the harness's tasks, of groups of them, or of your own in ``folder``.
        adapter: The adapter to score; None is the base alone.
        folder: Where more tasks are, as YAML files.
        limit: At most so many rows of each task.
        batch_size: Rows in one batch.
        apply_chat_template: Ask as users do, in the tokenizer's chat template; not the harness's default.
        task_manager: An ``lm_eval.tasks.TaskManager`` that is there already: one takes seconds to make.
        **options: Of ``lm_eval.simple_evaluate``, such as ``num_fewshot``.

    Raises:
        ConfigError: lm-eval is not installed.
        UnknownNameError: There is no such task.
        DataError: A task's data cannot be had.
    """
    model = harness_model(base, adapter, batch_size=batch_size)
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    manager = task_manager or TaskManager(include_path=None if folder is None else str(folder))
    for task in tasks:
        if not manager.match_tasks([task]):
            raise UnknownNameError(
                "task", task, manager.all_tasks, hint="A folder with tasks of your own adds to them."
            )
    with _own_random_states():
        try:
            found = simple_evaluate(
                model=model,
                tasks=list(tasks),
                task_manager=manager,
                limit=limit,
                batch_size=batch_size,
                apply_chat_template=apply_chat_template,
                **options,
            )
        except OSError as error:  # the Hub's errors are OSErrors too
            raise DataError(f"the data of {', '.join(tasks)} cannot be had: {error}") from error
    return {task: dict(_scores(scores)) for task, scores in found["results"].items()}


def _scores(scores: dict[str, Any]) -> Iterator[tuple[str, float | None]]:
    """The numbers among what the harness says of a task, their names without the filter where it is none."""
    for name, value in scores.items():
        if isinstance(value, (int, float)) and "," in name:
            yield name.removesuffix(",none"), plain(float(value))


@contextlib.contextmanager
def _own_random_states() -> Iterator[None]:
    """The harness seeds every random state; afterwards they go on as if it had not."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - it is this one that is seeded
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """It warns that a model was given and not a name: that is what happens here."""
    its = logging.getLogger("lm_eval.models.huggingface")
    level = its.level
    its.setLevel(logging.ERROR)
    try:
        yield
    finally:
        its.setLevel(level)


class _Facts:
    """Stands for the model while the harness makes itself ready, and would tie its weights and put it into another mode."""

    def __init__(self, model: Any) -> None:
        self.config, self.device, self.dtype = model.config, model.device, model.dtype


@functools.cache
def _model_class() -> Any:
    """Made when it is first asked for: its parent is lm-eval's."""
    try:
        from lm_eval.models.huggingface import HFLM
    except ImportError as error:
        reason = f"lm-eval cannot be imported ({error}): pip install 'adapterkit[lm-eval]'"
        raise ConfigError("lm-evaluation-harness is not there", [reason]) from error

    class HarnessModel(HFLM):  # type: ignore[misc]
        def __init__(self, base: Base, adapter: Acting | None, batch_size: int) -> None:
            self._base, self._adapter, self._ready = base, adapter, False
            tokenizer = copy.deepcopy(base.tokenizer)  # the harness sets its padding
            facts = _Facts(base.model)
            with _quiet():
                super().__init__(pretrained=facts, backend="causal", tokenizer=tokenizer, batch_size=batch_size)
            self._ready = True

        @property
        def model(self) -> Any:
            return self._base.model if self._ready else self._model

        @property
        def max_length(self) -> int:
            with self._base.using(self._adapter):
                (prefix,), (virtual,) = self._base.room(1)
            return int(super().max_length) - len(prefix) - len(virtual)

        def _model_call(self, inps: Any, attn_mask: Any = None, labels: Any = None) -> Any:  # noqa: ARG002 - its signature
            return self._base.logits(inps, adapter=self._adapter)

        def _model_generate(self, context: Any, max_length: int, stop: list[str], **options: Any) -> Any:
            with self._base.using(self._adapter), torch.no_grad():
                ids, mask = self._base.make_room(context, options.pop("attention_mask", None))
                more = ids.shape[1] - context.shape[1]
                out = super()._model_generate(ids, max_length + more, stop, attention_mask=mask, **options)
            return out[:, more:]

        def get_model_info(self) -> dict[str, Any]:
            """Of this base and adapter; the harness would ask the Hub."""
            reference = self._base.reference
            return {
                "model_name": reference.name,
                "model_revision": reference.revision,
                "adapter": self._adapter.digest if self._adapter is not None else None,
            }

    return HarnessModel
