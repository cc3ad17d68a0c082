"""The base, and what can be done with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

from .baking import bake
from .errors import ConfigError
from .evaluation import evaluate
from .generation import generate
from .shared import ACTIVE, Active, Selection, SharedModel
from .train.run import train, train_many

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from .adapter import Adapter
    from .audit import Audit
    from .baking import Baked
    from .blending import LearnedBlend
    from .compose import Acting
    from .evaluation import Comparison, Evaluation
    from .generation import Prompt
    from .planning import Plan
    from .train.jobs import Job
    from .train.rates import LearningRates
    from .train.sweep import Sweep

__all__ = ["ACTIVE", "Base", "Selection"]


class Base(SharedModel):
    """A shared base model: it is loaded when it is first needed, and no adapter ever changes one bit of it.

    Args:
        location: A folder, a Hub id such as ``"org/model"``, or a transformers model that is loaded already.
        revision: A Hub commit, tag or branch.
        dtype: ``"float32"``, ``"bfloat16"``, ``"float16"``, or ``"auto"``: the checkpoint's on an accelerator, else float32.
        device: Such as ``"cuda:1"``; ``"auto"`` is the first accelerator, else the CPU.
        tokenizer: A tokenizer to use instead of the one beside the model; needed with a model object.
        registry: The plugins to use; by default all that are installed.
        quantize: ``"nf4"``, ``"fp4"`` or ``"int8"`` loads all linear layers but the head so, with bitsandbytes; embeddings, norms
            and the head stay as they are. Not for a model object.
        double_quant: Whether the scales of 4-bit weights are themselves stored in 8 bits: 0.4 bits less for each weight.
    """

    # -- training -----------------------------------------------------------------------------------------------------

    def train(
        self, data: Any = None, *, method: str = "lora", output: str | os.PathLike[str] | None = None, **options: Any
    ) -> Adapter:
        """Train an adapter on ``data``; the base is left as it is, and the new adapter is resident.

        Args:
            data: A CSV, TSV, JSON, JSONL or Parquet file, a list of files, a mapping from file to weight, a
                ``datasets.Dataset``, or a list of mappings.
            method: The name of a method plugin.
            output: A folder for the run: the adapter at ``output/adapter``, a log, checkpoints and a report; nothing is written
                without it.
            **options: Options of the method (``rank=8``), of the steps (``epochs=1``; see :class:`~adapterkit.TrainOptions`),
                of the data (``columns``, ``format``, ``eval_data``, ``eval_split``, ``replay``, ``replay_ratio``), and
                ``objective``, ``general_data``, ``resume=True`` (go on where the run in ``output`` was cut off) and
                ``report=False``.

        Raises:
            ConfigError: Options that neither the method nor the run knows, or whose values do not fit.
            DataError: Rows that cannot be used, with file and line.
            TrainingError: The loss is no number any more, or has left for good.
        """
        if data is None:
            raise ConfigError("train needs data", ["data: is required: a file, a Dataset or a list of rows"])
        with self._twins.undone_on_failure(self):
            return train(self, data, method=method, output=output, **options)

    def train_many(self, jobs: Sequence[Job], *, output: str | os.PathLike[str] | None = None) -> list[Adapter]:
        """Train several adapters at once: they share every pass of the base, and nothing else.

        Each job has its own rows, method, options, optimizer and clock, and becomes the adapter that it would have become by
        itself, up to rounding.

        Args:
            jobs: What is to be trained: ``Job("cards.csv", method="lora", rank=8, name="cards")``.
            output: A folder for the runs, each in a folder of its job's name.

        Returns:
            The adapters, in the order of the jobs, all resident.

        Raises:
            JobsFailedError: Some jobs could not go on; the others' adapters are in it, and resident.
        """
        with self._twins.undone_on_failure(self):
            return train_many(self, jobs, output=output)

    def sweep(
        self,
        data: Any,
        grid: Mapping[str, Sequence[Any]],
        *,
        method: str = "lora",
        output: str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> Sweep:
        """Search for settings: every configuration begins, in shared passes, and at each rung the better ones go on.

        Args:
            data: What :meth:`train` takes.
            grid: Values to try by the option's name: ``{"learning_rate": [1e-4, 1e-3], "rank": [4, 16]}``.
            method: The name of a method plugin.
            output: A folder for the runs, each in a folder of its own.
            **options: What :meth:`train` takes, ``eval_data`` or ``eval_split`` among it: the loss on held-out rows decides; and
                ``eta``, ``min_steps``, ``samples`` and ``at_once``, see :class:`adapterkit.train.sweep.SweepOptions`.

        Returns:
            All configurations, the best first, and its adapter, which is what :meth:`train` would have made of it.
        """
        from .train.sweep import sweep

        with self._twins.undone_on_failure(self):
            return sweep(self, data, grid, method=method, output=output, **options)

    def find_learning_rate(
        self,
        data: Any,
        *,
        method: str = "lora",
        low: float = 1e-6,
        high: float = 1.0,
        steps: int = 100,
        **options: Any,
    ) -> LearningRates:
        """Look for a learning rate: one run in which it grows exponentially from step to step, until the loss has left for good.

        Nothing of it is kept, and nothing is written.

        Args:
            data: What :meth:`train` takes.
            method: The name of a method plugin.
            low: The rate of the first step.
            high: The rate of the last step, which need not be reached.
            steps: How many, at least 10.
            **options: What :meth:`train` takes, but for what the test sets itself.

        Raises:
            TrainingError: The loss had left for good before there was a curve.
        """
        from .train.rates import find_learning_rate

        return find_learning_rate(self, data, method=method, low=low, high=high, steps=steps, **options)

    def evaluate(self, data: Any, *, adapter: Selection | Active = ACTIVE, **options: Any) -> Evaluation:
        """Score generated answers and the loss on ``data``, beside the base alone.

        Args:
            data: What :meth:`train` takes.
            adapter: The adapter to score; the one in use by default.
            **options: ``columns``, ``format``, and those of :class:`adapterkit.evaluation.EvaluateOptions`: ``metrics``,
                ``max_new_tokens``, ``confidence``, ``compare=False`` to leave the base out, …

        Returns:
            A mapping of scores (``["accuracy"]``, ``["perplexity"]``, …), whose ``base`` holds the base's.
        """
        return evaluate(self, data, adapter=self.choice(adapter), **options)

    def compare(self, data: Any, adapters: Mapping[str, Acting | None], **options: Any) -> Comparison:
        """Score several adapters on the same rows, with what can be said of their differences.

        Args:
            data: What :meth:`train` takes.
            adapters: Adapters by a name of your choice; None is the base alone.
            **options: As for :meth:`evaluate`.

        Returns:
            Scores with intervals, a paired test for each two, and all answers side by side.
        """
        from .evaluation import compare

        return compare(self, data, adapters, **options)

    def learn_blend(self, adapters: Sequence[Acting] | Mapping[str, Acting], data: Any, **options: Any) -> LearnedBlend:
        """Find weights for adapters on a few examples; neither they nor the base are changed.

        Args:
            adapters: What is to be blended, perhaps by names of your choice.
            data: Rows of what the blend is for, as :meth:`train` takes them; some of them are held out, to see what the weights
                are worth.
            **options: ``eval_data``, ``eval_split`` (0.2 without either), ``columns``, ``format``, and those of
                :class:`adapterkit.blending.BlendOptions`: ``how="gradient_free"``, ``steps``, ``l1``, …

        Returns:
            The blend, and its loss on the held-out rows beside those of each adapter, of the uniform blend and of the base.

        Raises:
            SelectionError: The adapters cannot act at once, or one of them is a soft prompt, which has no weight.
        """
        from .blending import learn_blend

        return learn_blend(self, adapters, data, **options)

    def audit(self, data: Any, *, adapter: Acting | None = None, **options: Any) -> Audit:
        """Look through training data, and for what an adapter has memorised of it.

        Args:
            data: What :meth:`train` takes.
            adapter: One that was trained on ``data``: how much of it does it repeat?
            **options: ``eval_data``, ``canaries``, ``columns``, ``format``, and those of :class:`adapterkit.audit.AuditOptions`.
        """
        from .audit import audit

        return audit(self, data, adapter=adapter, **options)

    def plan(self, *, method: str | None = None, **options: Any) -> Plan:
        """What training on this base takes: memory, time and money, and what fits; the base is not loaded for it.

        Args:
            method: One method; by default those that are usually weighed against each other.
            **options: See :func:`adapterkit.planning.plan`.
        """
        from .planning import plan

        return plan(self, method=method, **options)

    def bake(
        self,
        adapter: Acting,
        folder: str | os.PathLike[str],
        *,
        max_shard_size: int | str = "5GB",
        min_survived: float = 0.5,
    ) -> Baked:
        """Write this base with ``adapter`` added to its weights: a transformers folder of its own, tokenizer and all.

        The sums are computed in float32 and cast once, to what each weight is stored in, or to the base's ``dtype`` where one was
        asked for. A base that is a folder or a Hub id is not loaded for it: it is read and written one layer at a time, from the
        weights as they are stored, whatever this base is quantized in.

        Args:
            adapter: An adapter, a stack or a blend.
            folder: A new folder.
            max_shard_size: The size of a file of weights, in bytes or as in ``"5GB"``.
            min_survived: How much of the update must have survived the cast, from 0 to 1; see
                :class:`adapterkit.baking.BakedLayer`.

        Returns:
            The folder, with what has become of each layer.

        Raises:
            ArtifactError: An adapter does not fit this base, or the disk is full; nothing is left of the new folder.
            SelectionError: The folder is not empty, an adapter is more than changes of weights, or too little of it survives.
        """
        return bake(self, adapter, folder, max_shard_size=max_shard_size, min_survived=min_survived)

    # -- answers ------------------------------------------------------------------------------------------------------

    @overload
    def generate(self, prompts: str, *, adapter: Selection | Active = ACTIVE, **options: Any) -> str: ...

    @overload
    def generate(
        self, prompts: Sequence[Prompt], *, adapter: Selection | Active = ACTIVE, **options: Any
    ) -> list[str]: ...

    def generate(self, prompts: Any, *, adapter: Selection | Active = ACTIVE, **options: Any) -> Any:
        """Answer prompts.

        Args:
            prompts: A text, or a list of texts or of lists of messages; rendered as in training.
            adapter: One for all, or a list with one for each prompt; None is the base alone. By default the one in use.
            **options: ``max_new_tokens``, ``temperature`` (0 is greedy), ``top_p``, ``top_k``, ``seed``, ``batch_size``; see
                :class:`adapterkit.generation.GenerateOptions`.

        Returns:
            The answers, in the order of the prompts; a single text for a single text.
        """
        chosen = self.choice(adapter)
        if isinstance(prompts, str):
            return generate(self, [prompts], adapter=chosen, **options)[0]
        return generate(self, prompts, adapter=chosen, **options)
