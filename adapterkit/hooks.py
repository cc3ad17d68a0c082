"""Every hook that a plugin may implement.

A plugin is a module (or any object) whose functions are marked with :data:`hookimpl`. It is found through the entry-point
group ``adapterkit``, or given as a file. There are three families, never mixed:

* **providers** return records: what the plugin adds;
* **operations** are asked of the one method that owns them, and may be wrapped by others (``hookimpl(wrapper=True)``);
* **events** tell every listener what happened; an exception in a listener is logged and the run goes on, but for
  ``adapterkit_before_publish``, which may veto.

An implementation may take fewer arguments than its specification, and gives none of them a default.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch import nn

    from .adapter import Adapter
    from .base import Base
    from .contracts import DataFormat, Example, Exporter, Logger, MergeStrategy, Method, Metric, Objective, Remote, Run
    from .effects import Effects
    from .sites import Site

__all__ = ["EVENTS", "GROUP", "OPERATION_HOOKS", "PROVIDERS", "hookimpl", "hookspec"]

GROUP = "adapterkit"
PROVIDERS = (
    "adapterkit_methods",
    "adapterkit_objectives",
    "adapterkit_formats",
    "adapterkit_metrics",
    "adapterkit_loggers",
    "adapterkit_merge_strategies",
    "adapterkit_exporters",
    "adapterkit_remotes",
)
OPERATION_HOOKS = (
    "adapterkit_configure",
    "adapterkit_build",
    "adapterkit_initialize",
    "adapterkit_finish",
    "adapterkit_lower",
)
EVENTS = (
    "adapterkit_train_started",
    "adapterkit_train_logged",
    "adapterkit_train_finished",
    "adapterkit_train_failed",
    "adapterkit_adapter_loaded",
    "adapterkit_before_publish",
    "adapterkit_published",
)

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


# ---------------------------------------------------------------------------------------------------------------------
# Providers: what a plugin adds
# ---------------------------------------------------------------------------------------------------------------------


@hookspec
def adapterkit_methods() -> Iterable[Method]:  # type: ignore[empty-body]
    """Methods that the plugin adds.

    Called once, when a method is first looked for. Return or yield :class:`~adapterkit.Method` records; a name that
    another plugin provides too is an error when somebody asks for it.

    Example::

        @hookimpl
        def adapterkit_methods():
            yield LayerMethod("ia3", IA3Config, IA3Layer)
    """


@hookspec
def adapterkit_objectives() -> Iterable[Objective]:  # type: ignore[empty-body]
    """Objectives that the plugin adds: what a run minimises.

    Called once, when an objective is first looked for. Return or yield :class:`~adapterkit.Objective` records.

    Example::

        @hookimpl
        def adapterkit_objectives():
            yield Objective(name="sft", loss=completion_loss)
    """


@hookspec
def adapterkit_formats() -> Iterable[DataFormat]:  # type: ignore[empty-body]
    """Data formats that the plugin adds: shapes that rows may have.

    Called once, when data is first read. Return or yield :class:`~adapterkit.DataFormat` records.

    Example::

        @hookimpl
        def adapterkit_formats():
            yield DataFormat(name="pairs", fields=("q", "a"), matches=lambda row: "q" in row, convert=pair)
    """


@hookspec
def adapterkit_metrics() -> Iterable[Metric]:  # type: ignore[empty-body]
    """Metrics that the plugin adds: scores of generated answers.

    Called once, when something is first evaluated. Return or yield :class:`~adapterkit.Metric` records.

    Example::

        @hookimpl
        def adapterkit_metrics():
            yield Metric(name="length", compute=lambda texts, expected: {"length": mean(map(len, texts))})
    """


@hookspec
def adapterkit_loggers() -> Iterable[Logger]:  # type: ignore[empty-body]
    """Loggers that the plugin adds: places for the records of runs, for those who ask for them.

    Called once, when a logger is first looked for. Return or yield :class:`~adapterkit.Logger` records. To be told of every
    run, whatever it reports to, listen to the events instead.

    Example::

        @hookimpl
        def adapterkit_loggers():
            yield Logger(name="prometheus", open=push_to_gateway, requires="prometheus_client")
    """


@hookspec
def adapterkit_merge_strategies() -> Iterable[MergeStrategy]:  # type: ignore[empty-body]
    """Merge strategies that the plugin adds: ways to make one update of several.

    Called once, when a strategy is first looked for. Return or yield :class:`~adapterkit.MergeStrategy` records.

    Example::

        def median(deltas: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
            return torch.stack(list(deltas)).median(0).values

        @hookimpl
        def adapterkit_merge_strategies():
            yield MergeStrategy(name="median", merge=median)
    """


@hookspec
def adapterkit_exporters() -> Iterable[Exporter]:  # type: ignore[empty-body]
    """Exporters that the plugin adds: forms in which other programs read adapters.

    Called once, when an exporter is first looked for. Return or yield :class:`~adapterkit.Exporter` records.

    Example::

        @hookimpl
        def adapterkit_exporters():
            yield Exporter(name="openvino", export=write_openvino, requires="openvino")
    """


@hookspec
def adapterkit_remotes() -> Iterable[Remote]:  # type: ignore[empty-body]
    """Remotes that the plugin adds: kinds of places where adapters are published and fetched.

    Called once, when a URL's scheme is first looked for. Return or yield :class:`~adapterkit.Remote` records.

    Example::

        @hookimpl
        def adapterkit_remotes():
            yield Remote(name="oci", open=OciRepository)
    """


# ---------------------------------------------------------------------------------------------------------------------
# Operations: asked of the method that owns them. Authors override the methods of the class; wrappers implement the hook.
# ---------------------------------------------------------------------------------------------------------------------


@hookspec(firstresult=True)
def adapterkit_configure(method: Method, config: Any, sites: Sequence[Site]) -> Any:
    """Decide everything in a configuration that depends on the base.

    Called before an adapter is built, with the configuration as the user gave it and every site of the base. Return the
    configuration to use; it is what the adapter keeps.

    Example::

        @hookimpl(wrapper=True)
        def adapterkit_configure(method, config, sites):
            config = yield
            print(method.name, config)
            return config
    """


@hookspec(firstresult=True)
def adapterkit_build(method: Method, config: Any, sites: Sequence[Site]) -> Mapping[str, nn.Module]:  # type: ignore[empty-body]
    """Make the layers of an adapter.

    Called when a training run starts, under the run's seed, and when an adapter is loaded, on the meta device, to learn
    which tensors it must hold. ``config`` is a resolved configuration. Return a fresh module for each site, by its name.

    Example::

        @hookimpl(wrapper=True)
        def adapterkit_build(method, config, sites):
            layers = yield
            return {name: watch(layer) for name, layer in layers.items()}
    """


@hookspec(firstresult=True)
def adapterkit_initialize(
    method: Method, config: Any, layers: Mapping[str, nn.Module], base: Base, examples: Sequence[Example]
) -> None:
    """Set fresh layers from the tokenizer, the base's answers or the training rows.

    Called once when a training run starts, after ``adapterkit_build``, under the run's seed, with the layers where they will
    be trained and the encoded rows. Change the layers in place; the base must stay as it is. The return value is ignored.

    Example::

        @hookimpl(wrapper=True)
        def adapterkit_initialize(method, layers):
            yield
            print(method.name, "starts with", len(layers), "layers")
    """


@hookspec(firstresult=True)
def adapterkit_finish(  # type: ignore[empty-body]
    method: Method, config: Any, layers: Mapping[str, nn.Module]
) -> tuple[Any, Mapping[str, nn.Module]]:
    """Say what is kept of trained layers.

    Called once when a training run ends. Return the configuration and the layers that make the adapter: ``adapterkit_build``
    must make layers of the same tensors from that configuration.

    Example::

        @hookimpl(wrapper=True)
        def adapterkit_finish(config, layers):
            kept = yield
            return kept
    """


@hookspec(firstresult=True)
def adapterkit_lower(method: Method, layers: Mapping[str, nn.Module]) -> Effects | None:
    """Say what trained layers do, as effects.

    Called for each adapter that becomes resident, with layers that hold its tensors, and with one fresh layer of each class
    before a training run. Return effects by site name, or None
    when they cannot be said as effects: the layers then act themselves.

    Example::

        @hookimpl(wrapper=True)
        def adapterkit_lower(method, layers):
            effects = yield
            return effects
    """


# ---------------------------------------------------------------------------------------------------------------------
# Events: every listener is told; none can stop the run, and only before_publish can stop what is told
# ---------------------------------------------------------------------------------------------------------------------


@hookspec
def adapterkit_train_started(run: Run) -> None:
    """A training run is about to take its first step.

    ``run`` says the method, its configuration, the options and the number of steps. The return value is ignored.

    Example::

        @hookimpl
        def adapterkit_train_started(run):
            print(f"{run.method}: {run.steps} steps")
    """


@hookspec
def adapterkit_train_logged(run: Run, record: Mapping[str, Any]) -> None:
    """A training run logged a record.

    Called every ``logging_steps`` steps and after each evaluation. ``record`` holds ``step`` and, as far as they are
    known, ``loss``, ``learning_rate``, ``grad_norm``, ``tokens_per_second``, ``eval_loss``. The return value is ignored.

    Example::

        @hookimpl
        def adapterkit_train_logged(run, record):
            writer.add_scalar("loss", record["loss"], record["step"])
    """


@hookspec
def adapterkit_train_finished(run: Run, adapter: Adapter) -> None:
    """A training run has ended, and ``adapter`` is what it made.

    Called once, before ``train`` returns; a run that failed tells ``adapterkit_train_failed`` instead. The return value is
    ignored.

    Example::

        @hookimpl
        def adapterkit_train_finished(run, adapter):
            print(adapter.digest)
    """


@hookspec
def adapterkit_train_failed(run: Run, error: BaseException) -> None:
    """A training run has ended without an adapter.

    Called once, before ``train`` raises ``error``: a :class:`~adapterkit.TrainingError`, Ctrl-C, or what else went wrong after
    the run had started. The return value is ignored.

    Example::

        @hookimpl
        def adapterkit_train_failed(run, error):
            print(f"{run.method}: {error}")
    """


@hookspec
def adapterkit_adapter_loaded(adapter: Adapter) -> None:
    """An adapter has become resident on a base.

    Called after every check, when it can be selected. The return value is ignored.

    Example::

        @hookimpl
        def adapterkit_adapter_loaded(adapter):
            print(f"{adapter.method} adapter {adapter.digest[:12]} is ready")
    """


@hookspec
def adapterkit_before_publish(adapter: Adapter | None, url: str, card: str) -> None:
    """An adapter, or a whole model, is about to be published, for the first time or once more by a rollback.

    Called once, after every check and before anything is sent. ``adapter`` is None for a model. ``card`` is the text of its
    README.md. Raise an error to veto: it is what the publisher sees. The return value is ignored.

    Example::

        @hookimpl
        def adapterkit_before_publish(adapter, url):
            if adapter is not None and not adapter.manifest.evaluation:
                raise ValueError("ours are evaluated before they leave the house")
    """


@hookspec
def adapterkit_published(adapter: Adapter, url: str, revision: str) -> None:
    """An adapter has been published, and read back.

    Called once. ``revision`` is the id of the version, such as a commit's sha. The return value is ignored.

    Example::

        @hookimpl
        def adapterkit_published(url, revision):
            print(f"{url}@{revision}")
    """
