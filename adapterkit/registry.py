"""Finds plugins, loads them when they are needed, and asks them.

Listing reads metadata only. A plugin is imported when something that it may provide is first looked for: the entry point of
that name first, all others on a miss. A plugin that cannot be loaded stays listed with the reason; it never stops another.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
from collections import defaultdict
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar, cast

import attrs
import pluggy

from . import hooks
from .contracts import DataFormat, Exporter, Logger, MergeStrategy, Method, Metric, Objective, Remote
from .contracts.checking import check_record
from .contracts.method import OPERATIONS
from .cures import explain
from .discovery import Found, find, import_file
from .errors import BrokenPluginError, PluginClashError, UnknownNameError, suggest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["PluginInfo", "Registry", "default_registry"]

logger = logging.getLogger("adapterkit")
RecordT = TypeVar("RecordT", Method, Objective, DataFormat, Metric, Logger, MergeStrategy, Exporter, Remote)

KINDS: dict[type, str] = {
    Method: "adapterkit_methods",
    Objective: "adapterkit_objectives",
    DataFormat: "adapterkit_formats",
    Metric: "adapterkit_metrics",
    Logger: "adapterkit_loggers",
    MergeStrategy: "adapterkit_merge_strategies",
    Exporter: "adapterkit_exporters",
    Remote: "adapterkit_remotes",
}
NAMES: dict[type, str] = {kind: kind.__name__.lower() for kind in KINDS} | {
    DataFormat: "data format",
    MergeStrategy: "merge strategy",
}


@attrs.frozen
class PluginInfo:
    """One line of ``adapterkit plugins``.

    Attributes:
        name: The entry point's name, or the file's.
        distribution: The distribution that brings it, or ``"-"`` for a file or an object.
        version: The distribution's version.
        module: What is imported.
        state: ``"available"``, ``"loaded"``, ``"disabled"``, ``"clash"`` or ``"broken"``.
        reason: Why it is not usable, and what to do.
        provides: What it was seen to provide, once loaded.
    """

    name: str
    distribution: str
    version: str
    module: str
    state: str
    reason: str = ""
    provides: tuple[str, ...] = ()


class _Operations:
    """What a method can do, under the names of the hooks: pluggy 1.6 leaves nobody out of a call who has no such name."""

    def __init__(self, method: Method) -> None:
        self.method = method
        for name in OPERATIONS:
            operation = getattr(method, name)
            if operation is not None:
                setattr(self, f"adapterkit_{name}", operation)


class _PluginManager(pluggy.PluginManager):
    """Takes the operations of a :class:`Method` for hook implementations, with no marks on them."""

    def parse_hookimpl_opts(self, plugin: object, name: str) -> pluggy.HookimplOpts | None:
        if not isinstance(plugin, _Operations):
            return super().parse_hookimpl_opts(plugin, name)
        if not name.startswith("adapterkit_"):
            return None
        marks = dict.fromkeys(("wrapper", "hookwrapper", "optionalhook", "tryfirst", "trylast"), False)
        return cast("pluggy.HookimplOpts", {**marks, "specname": None})


class Registry:
    """The plugins of one process and what they provide.

    Args:
        found: What is installed; by default what the entry points of this environment say.
        environ: Where ``ADAPTERKIT_PLUGINS`` (the only plugins allowed) and ``ADAPTERKIT_DISABLE`` (plugins left out) are
            read: names of entry points or of distributions, with commas between. ``ADAPTERKIT_STRICT=1`` raises on a
            plugin that cannot be loaded instead of leaving it out.
    """

    def __init__(self, found: Iterable[Found] | None = None, environ: Mapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        self._strict = environ.get("ADAPTERKIT_STRICT", "") not in ("", "0")
        self._infos: dict[tuple[str, str], PluginInfo] = {}
        self._found: dict[tuple[str, str], Found] = {}
        self._records: dict[type, dict[str, list[tuple[Any, PluginInfo]]]] = defaultdict(lambda: defaultdict(list))
        self._manager = _PluginManager(hooks.GROUP)
        self._manager.add_hookspecs(hooks)
        self._callers: dict[tuple[str, str], Any] = {}
        self._lock = threading.RLock()  # a plugin is registered once, however many threads look for what it provides
        self._list(find() if found is None else found, environ)

    # -- listing ------------------------------------------------------------------------------------------------------

    def plugins(self) -> tuple[PluginInfo, ...]:
        """Every plugin that is installed or was added, usable or not, by name; imports nothing."""
        return tuple(sorted(self._infos.values(), key=lambda info: (info.name, info.distribution)))

    def _list(self, found: Iterable[Found], environ: Mapping[str, str]) -> None:
        allowed, disabled = _names(environ.get("ADAPTERKIT_PLUGINS")), _names(environ.get("ADAPTERKIT_DISABLE"))
        by_name: dict[str, list[Found]] = defaultdict(list)
        for one in found:
            state, reason = "available", one.problem
            mine = {one.name, one.distribution}
            if disabled & mine:
                state, reason = "disabled", f"named in ADAPTERKIT_DISABLE={environ['ADAPTERKIT_DISABLE']}"
            elif allowed and not allowed & mine:
                state, reason = "disabled", f"not named in ADAPTERKIT_PLUGINS={environ['ADAPTERKIT_PLUGINS']}"
            elif reason:
                state = "broken"
            key = (one.name, one.distribution)
            self._found[key] = one
            self._infos[key] = PluginInfo(one.name, one.distribution, one.version, one.module, state, reason)
            if state == "available":
                by_name[one.name].append(one)
        for name, rivals in by_name.items():
            if len(rivals) > 1:
                reason = _clash(f"plugin {name!r}", [rival.distribution for rival in rivals])
                for rival in rivals:
                    self._set((name, rival.distribution), state="clash", reason=reason)

    def _set(self, key: tuple[str, str], **changes: Any) -> PluginInfo:
        self._infos[key] = attrs.evolve(self._infos[key], **changes)
        return self._infos[key]

    # -- loading ------------------------------------------------------------------------------------------------------

    def add(self, plugin: str | os.PathLike[str] | ModuleType | object) -> PluginInfo:
        """Add a plugin that is not installed: a Python file, a module or an object with marked functions.

        Raises:
            BrokenPluginError: It cannot be imported, or does not keep the contract.
        """
        if isinstance(plugin, (str, os.PathLike)):
            path = Path(plugin)
            name, module = path.stem, str(path)
            plugin = import_file(path)
        else:
            name = plugin.__name__ if isinstance(plugin, ModuleType) else type(plugin).__name__
            module = name
        key = (name, "-")
        if key in self._infos:
            raise PluginClashError(f"a plugin named {name!r} was added before; give this one another name")
        self._infos[key] = PluginInfo(name, "-", "-", module, "available")
        try:
            with self._lock:
                return self._register(key, plugin)
        except Exception as error:
            del self._infos[key]
            raise BrokenPluginError(f"plugin {module!r} cannot be used: {explain(error)}") from error

    def load(self, name: str) -> tuple[PluginInfo, ...]:
        """Load the plugins whose entry point is called ``name``; what cannot be loaded is listed as broken."""
        return tuple(self._load(key) for key in list(self._infos) if key[0] == name)

    def load_all(self) -> None:
        """Load every plugin that may be loaded."""
        for key in list(self._infos):
            self._load(key)

    def _load(self, key: tuple[str, str]) -> PluginInfo:
        with self._lock:
            info = self._infos[key]
            return self._import(key, info) if info.state == "available" else info

    def _import(self, key: tuple[str, str], info: PluginInfo) -> PluginInfo:
        try:
            return self._register(key, self._found[key].load())
        except Exception as error:
            reason = explain(error, info.distribution)
            if self._strict:
                raise BrokenPluginError(f"plugin {info.name!r} ({info.module}) cannot be used: {reason}") from error
            return self._set(key, state="broken", reason=reason)

    def _register(self, key: tuple[str, str], plugin: object) -> PluginInfo:
        """Register ``plugin`` and take its records, all or nothing."""
        self._manager.register(plugin, name=f"{key[0]} ({key[1]})")
        try:
            self._check_hooks(plugin)
            records = self._ask(plugin)
        except BaseException:
            self._manager.unregister(plugin)
            raise
        provides = tuple(f"{NAMES[kind]} {record.name}" for kind, record in records)
        info = self._set(key, state="loaded", reason="", provides=provides)
        for kind, record in records:
            self._records[kind][record.name].append((record, info))
            if isinstance(record, Method):
                self._manager.register(_Operations(record), name=f"method:{record.name} ({key[0]}, {key[1]})")
        self._callers.clear()
        return info

    def _check_hooks(self, plugin: object) -> None:
        """Refuse marks on no function at all, and on functions that nobody calls."""
        marked = self._manager.get_hookcallers(plugin) or ()
        if not marked:
            raise TypeError("it marks no hook: put @hookimpl above a function such as adapterkit_methods()")
        specified = [name for name in vars(hooks) if name.startswith("adapterkit_")]
        for caller in marked:
            own = [one for one in caller.get_hookimpls() if one.plugin is plugin]
            if not caller.has_spec() and not all(one.optionalhook for one in own):
                raise TypeError(f"no hook {caller.name!r}{suggest(caller.name, specified)}")
        self._manager.check_pending()

    def _ask(self, plugin: object) -> list[tuple[type, Any]]:
        """The records of one plugin, checked."""
        others = {p for p in self._manager.get_plugins() if p is not plugin}
        records = []
        for kind, hook in KINDS.items():
            for answer in self._manager.subset_hook_caller(hook, others)():
                if isinstance(answer, kind):
                    raise TypeError(f"{hook} must yield {kind.__name__} records, and returned one: say `yield`")
                for record in answer:
                    check_record(record, kind, hook)
                    records.append((kind, record))
        return records

    # -- looking up ---------------------------------------------------------------------------------------------------

    def method(self, name: str) -> Method:
        """The method called ``name``.

        Raises:
            UnknownNameError: No plugin provides it; broken plugins are named.
            PluginClashError: Two plugins provide it.
        """
        return self._one(Method, name)

    def methods_of_peft(self, peft_type: str) -> tuple[Method, ...]:
        """The methods whose files PEFT calls ``peft_type``; a clash between others is no matter here."""
        self.load_all()
        rivals = self._records[Method]
        names = sorted(name for name, found in rivals.items() if any(one.peft_type == peft_type for one, _ in found))
        return tuple(self._unique(Method, name) for name in names)

    def objective(self, name: str) -> Objective:
        """The objective called ``name``; raises as :meth:`method` does."""
        return self._one(Objective, name)

    def logger(self, name: str) -> Logger:
        """The logger called ``name``; raises as :meth:`method` does."""
        return self._one(Logger, name)

    def merge_strategy(self, name: str) -> MergeStrategy:
        """The merge strategy called ``name``; raises as :meth:`method` does."""
        return self._one(MergeStrategy, name)

    def exporter(self, name: str) -> Exporter:
        """The exporter called ``name``; raises as :meth:`method` does."""
        return self._one(Exporter, name)

    def remote(self, scheme: str) -> Remote:
        """The kind of place whose URLs begin with ``scheme``; raises as :meth:`method` does."""
        return self._one(Remote, scheme)

    def methods(self) -> tuple[Method, ...]:
        """Every method, by name; loads all plugins."""
        return self._all(Method)

    def formats(self) -> tuple[DataFormat, ...]:
        """Every data format, in the order in which they are asked; loads all plugins."""
        return tuple(sorted(self._all(DataFormat), key=lambda one: (one.priority, one.name)))

    def metrics(self) -> tuple[Metric, ...]:
        """Every metric, by name; loads all plugins."""
        return self._all(Metric)

    def loggers(self) -> tuple[Logger, ...]:
        """Every logger, by name; loads all plugins."""
        return self._all(Logger)

    def merge_strategies(self) -> tuple[MergeStrategy, ...]:
        """Every merge strategy, by name; loads all plugins."""
        return self._all(MergeStrategy)

    def exporters(self) -> tuple[Exporter, ...]:
        """Every exporter, by name; loads all plugins."""
        return self._all(Exporter)

    def remotes(self) -> tuple[Remote, ...]:
        """Every kind of place, by scheme; loads all plugins."""
        return self._all(Remote)

    def provider(self, method: Method) -> str:
        """The distribution and version that provide ``method``, such as ``"adapterkit 0.1.0"``; the name of a plugin file."""
        info = next(info for record, info in self._records[Method][method.name] if record is method)
        # a file's name, not its path: an adapter is the same wherever it was made
        return f"{info.distribution} {info.version}" if info.distribution != "-" else Path(info.module).name

    def _one(self, kind: type[RecordT], name: str) -> RecordT:
        if name not in self._records[kind]:
            self.load(name)
        if name not in self._records[kind]:
            self.load_all()
        if name not in self._records[kind]:
            raise self._unknown(NAMES[kind], name, self._records[kind])
        return self._unique(kind, name)

    def _all(self, kind: type[RecordT]) -> tuple[RecordT, ...]:
        self.load_all()
        return tuple(self._unique(kind, name) for name in sorted(self._records[kind]))

    def _unique(self, kind: type[RecordT], name: str) -> RecordT:
        rivals = self._records[kind][name]
        if len(rivals) > 1:
            raise PluginClashError(
                _clash(f"{NAMES[kind]} {name!r}", [f"{i.name} ({i.distribution})" for _, i in rivals])
            )
        return cast("RecordT", rivals[0][0])

    def _unknown(self, kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
        """The error for a name that nothing provides, or whose provider cannot be used."""
        own = [info for info in self.plugins() if info.name == name and info.reason]
        if own:
            provider = f"{own[0].distribution} {own[0].version}"
            return UnknownNameError(
                kind, name, known, reason=f"{provider} provides it, but is {own[0].state}: {own[0].reason}"
            )
        broken = [info.name for info in self.plugins() if info.state == "broken"]
        hint = f"(installed but broken: {', '.join(broken)}; see `adapterkit plugins --why NAME`)" if broken else ""
        return UnknownNameError(kind, name, known, hint)

    # -- asking -------------------------------------------------------------------------------------------------------

    def call(self, operation: str, method: Method, **arguments: Any) -> Any:
        """Ask ``method`` alone for an operation (``"configure"``, ``"build"``, ``"lower"``), wrapped by whoever wraps it."""
        key = (operation, method.name)
        if key not in self._callers:
            plugins = self._manager.get_plugins()
            others = {p for p in plugins if isinstance(p, _Operations) and p.method is not method}
            self._callers[key] = self._manager.subset_hook_caller(f"adapterkit_{operation}", others)
        return self._callers[key](method=method, **arguments)

    def ask(self, event: str, **arguments: Any) -> None:
        """Tell every listener of what is about to be done; one that raises has vetoed it, and its error is the caller's."""
        self.load_all()
        getattr(self._manager.hook, event)(**arguments)

    def notify(self, event: str, **arguments: Any) -> None:
        """Tell every listener; one that fails is logged with its plugin's name, and the rest are told all the same."""
        self.load_all()
        for implementation in getattr(self._manager.hook, event).get_hookimpls():
            try:
                implementation.function(**{name: arguments[name] for name in implementation.argnames})
            except Exception:
                logger.exception("plugin %s failed in %s; the run goes on", implementation.plugin_name, event)


def default_registry() -> Registry:
    """The registry of this process, made when it is first needed."""
    with _MAKING:
        return _default_registry()


@functools.cache
def _default_registry() -> Registry:
    return Registry()


_MAKING = threading.Lock()


def _names(value: str | None) -> set[str]:
    return {part.strip() for part in (value or "").split(",") if part.strip()}


def _clash(what: str, owners: Iterable[str]) -> str:
    return f"{what} is provided by {' and by '.join(sorted(owners))}; pick one with ADAPTERKIT_DISABLE=<the other>"
