"""One shared, frozen model, and which adapters act on it."""

from __future__ import annotations

import contextlib
import inspect
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias, TypeVar, overload

import torch

from .adapter import Adapter
from .artifact.fit import check_base
from .artifact.manifest import BaseReference
from .compose import Acting, Blend
from .data.batching import prepend
from .data.padding import check_known, check_padding
from .errors import BaseLoadError, SelectionError
from .fingerprint import fingerprint
from .loading import LoadedBase, Source, load_base
from .once import once
from .publishing import find
from .quantization import format_of
from .registry import Registry, default_registry
from .resident import Resident, check_adapter, make_resident
from .runtime import Plan, Runtime, compose, room, row_plan, take_over
from .sites import Site, find_sites
from .twins import Twins

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor


__all__ = ["ACTIVE", "Active", "Selection", "SharedModel"]

Selection: TypeAlias = Acting | Sequence[Acting | None] | None
"""An adapter, a Stack or a Blend, or one for each row of a batch; None is the base alone."""

ActingT = TypeVar("ActingT", bound=Acting)
MOST_COMPOSED = 64
"""How many stacks and blends are kept ready; a serving app may ask for other weights with each request."""


class Active:
    """Stands for the adapter that is in use; None stands for the base alone."""

    def __repr__(self) -> str:
        return "ACTIVE"


ACTIVE: Final = Active()


class SharedModel:
    """The model of a :class:`~adapterkit.Base`, loaded when it is first needed, and the adapters in its memory."""

    def __init__(
        self,
        location: str | os.PathLike[str] | torch.nn.Module,
        *,
        revision: str | None = None,
        dtype: str = "auto",
        device: str = "auto",
        tokenizer: Any = None,
        registry: Registry | None = None,
        quantize: str | None = None,
        double_quant: bool = True,
    ) -> None:
        self.source = Source(
            location=location,
            revision=revision,
            dtype=dtype,
            device=device,
            tokenizer=tokenizer,
            quantize=quantize,
            double_quant=double_quant,
        )
        self.registry = registry or default_registry()
        self._residents: dict[str, Resident] = {}
        self._twins = Twins()
        self._composed: OrderedDict[str, tuple[Blend, Plan]] = OrderedDict()
        self._active: Acting | None = None
        self._override: ContextVar[Selection | Active] = ContextVar("adapterkit_selection", default=ACTIVE)
        self._lock = threading.RLock()

    # -- the model ----------------------------------------------------------------------------------------------------

    @once
    def _loaded(self) -> LoadedBase:
        return load_base(self.source)

    @once
    def runtime(self) -> Runtime:
        """The sites' hooks and the plan that they follow.

        Raises:
            BaseLoadError: The model object is another Base's, whose adapters would act here too.
        """
        if not take_over(self._loaded.model):
            raise BaseLoadError("this model object is in use by another Base; use that one, or detach() it first")
        return Runtime(self._loaded.model, self.sites, owner=self)

    @property
    def model(self) -> Any:
        """The transformers model; it always acts with the adapter in use."""
        _ = self.runtime
        return self._loaded.model

    @property
    def tokenizer(self) -> Any:
        """The base's tokenizer.

        Raises:
            SelectionError: A model object was given without one.
        """
        if self._loaded.tokenizer is None:
            raise SelectionError("this base has no tokenizer; give one: Base(model, tokenizer=...)")
        return self._loaded.tokenizer

    @once
    def sites(self) -> tuple[Site, ...]:
        """Every layer that an adapter may act on."""
        return find_sites(self._loaded.model)

    @once
    def reference(self) -> BaseReference:
        """The name, commit and fingerprint by which adapters remember this base."""
        loaded = self._loaded
        return BaseReference(name=self.source.name, revision=loaded.commit, fingerprint=fingerprint(loaded.model))

    @property
    def device(self) -> torch.device:
        """Where the base's first weights are."""
        device: torch.device = next(self._loaded.model.parameters()).device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """What the base computes in."""
        dtype: torch.dtype = self._loaded.model.dtype
        return dtype

    @property
    def quantized(self) -> str:
        """What the base is quantized in: ``"nf4"``, ``"fp4"``, ``"int8"``, or what a model object says; empty when it is not."""
        return self.source.quantize or format_of(self._loaded.model)

    def quantized_as(self, quantize: str, *, double_quant: bool = True) -> Self:
        """This base where it is quantized so, or is not loaded yet and then will be; else a twin, loaded beside it and kept.

        Raises:
            ConfigError: It is quantized otherwise, or is a model object, which cannot be loaded again.
        """
        with self._lock:
            return self._twins.find(self, quantize, double_quant=double_quant, loaded="_loaded" in self.__dict__)

    def unload_model(self, source: Source) -> None:
        """Give up the model and everything made for it; it is loaded again, from ``source``, when it is next needed."""
        with self._lock:
            self._let_go("reference", "_loaded")
            self.source = source

    def detach(self) -> None:
        """Take everything of adapterkit off the model: it is as it was before, and becomes a base again when it is used."""
        with self._lock:
            self._twins.clear()
            if self.source.is_object:
                self._loaded.thaw()
                self._let_go("reference", "_loaded")  # the caller may train it before it is used again
            else:
                self._let_go()

    def _let_go(self, *made: str) -> None:
        if "runtime" in self.__dict__:
            self.runtime.remove()
        self._residents.clear()
        self._composed.clear()
        self._active = None
        for name in ("runtime", "sites", *made):
            self.__dict__.pop(name, None)

    # -- adapters -----------------------------------------------------------------------------------------------------

    @property
    def active(self) -> Selection:
        """The adapter in use here and now; None is the base alone."""
        mine = self._override.get()
        return self._active if isinstance(mine, Active) else mine

    @property
    def resident(self) -> tuple[Adapter, ...]:
        """The adapters that are held in the base's memory, ready to be selected."""
        return tuple(resident.adapter for resident in self._residents.copy().values())

    @overload
    def load(self, adapter: ActingT) -> ActingT: ...

    @overload
    def load(self, adapter: str | os.PathLike[str]) -> Acting: ...

    def load(self, adapter: Acting | str | os.PathLike[str]) -> Acting:
        """Make an adapter resident: checked against this base and ready to be selected.

        Args:
            adapter: An adapter, a :class:`~adapterkit.Stack` or a :class:`~adapterkit.Blend` of some; the folder of an adapter; the
                file of a blend, whose adapters are those that are resident here or lie where it says; a reference of the store,
                such as ``"cards@production"``; or an address, such as ``"hf://org/cards@v2"``, which is pulled into the store.

        Raises:
            ArtifactError: It is refused; the base and the adapters that it holds are as they were.
            SelectionError: Adapters that cannot act at once.
        """
        if isinstance(adapter, (str, os.PathLike)):
            adapter = find(adapter, registry=self.registry, adapters=self.resident)
        self._plan_of(adapter)
        return adapter

    def prepare(self, adapter: Adapter) -> Resident:
        """An adapter ready to act on this base, in memory of its own that the base does not keep: for who keeps their own account.

        Raises:
            ArtifactError: It does not fit this base.
            SelectionError: Its method does not act on such a base.
        """
        check_base(adapter.manifest, self.reference.fingerprint)
        return make_resident(self.registry, adapter, self.sites, self._loaded.model)

    def check(self, adapter: Adapter) -> None:
        """Refuse an adapter that does not fit this base, without a byte of it being moved; raises as :meth:`prepare`."""
        check_base(adapter.manifest, self.reference.fingerprint)
        weights = dict(self._loaded.model.named_parameters(remove_duplicate=False))
        check_adapter(self.registry, adapter, self.sites, weights)

    def unload(self, adapter: Acting) -> None:
        """Give up an adapter's memory; if it is in use, also as a part of a blend, the base alone is in use from now on.

        The adapters of a stack or a blend stay resident.

        Raises:
            SelectionError: It is not resident.
        """
        with self._lock:
            held: Mapping[str, Any] = self._composed if isinstance(adapter, Blend) else self._residents
            active = self._active
            if adapter.digest not in held and adapter != active:
                raise SelectionError(f"{adapter!r} is not resident on this base")
            gone = {adapter} | {blend for blend, _ in self._composed.values() if adapter in blend.adapters}
            if active is not None and (active in gone or (isinstance(active, Blend) and adapter in active.adapters)):
                self.use(None)
            for one in gone:
                (self._composed if isinstance(one, Blend) else self._residents).pop(one.digest, None)

    def use(self, adapter: Acting | None) -> None:
        """From now on, act with ``adapter``, a stack or a blend of several, or as the base alone."""
        with self._lock:
            self.runtime.active = self._plan_of(adapter) if adapter is not None else None
            self._active = adapter

    @contextlib.contextmanager
    def using(self, adapter: Selection) -> Iterator[None]:
        """Act with ``adapter`` within this block, in this thread or task only; a list has one entry for each row of a batch."""
        plan = self._plan(adapter)
        token = self._override.set(adapter)
        try:
            with self.runtime.override(plan):
                yield
        finally:
            self._override.reset(token)

    def _plan(self, adapter: Selection) -> Plan | None:
        """What the sites are to do for a selection."""
        if adapter is None or isinstance(adapter, (Adapter, Blend)):
            return self._plan_of(adapter) if adapter is not None else None
        if not isinstance(adapter, (list, tuple)) or not adapter:
            raise SelectionError(
                f"an adapter is an Adapter, a Stack or a Blend, a list with one for each row, or None; not {adapter!r}"
            )
        plans = [self._plan_of(one) if one is not None else None for one in adapter]
        return plans[0] if len(set(map(id, plans))) == 1 else row_plan(plans, self.device)

    def _plan_of(self, adapter: Acting) -> Plan:
        """What the sites do for one adapter, or for several at once."""
        if not isinstance(adapter, Blend):
            return self._resident(adapter).plan
        with self._lock:
            found = self._composed.get(adapter.digest)
            if found is None:
                parts = [(self._resident(one).plan, weight) for one, weight in adapter.parts]
                found = self._composed[adapter.digest] = (adapter, compose(parts))
            self._composed.move_to_end(adapter.digest)
            if len(self._composed) > MOST_COMPOSED:
                self._composed.popitem(last=False)
            return found[1]

    def _resident(self, adapter: Adapter) -> Resident:
        if not isinstance(adapter, Adapter):
            named = repr(adapter) if isinstance(adapter, (str, os.PathLike)) else "folder"
            cure = (
                "a list is for `using` or `adapter=`" if isinstance(adapter, list) else f"base.load({named}) gives one"
            )
            raise SelectionError(f"not an adapter: {adapter!r}; {cure}")
        found = self._residents.get(adapter.digest)
        if found is not None:
            return found
        with self._lock:
            found = self._residents.get(adapter.digest)
            if found is not None:  # another thread was faster
                return found
            resident = self.prepare(adapter)
            _ = self.runtime
            self._residents[adapter.digest] = resident
        self.registry.notify("adapterkit_adapter_loaded", adapter=adapter)
        return resident

    @torch.no_grad()
    def logits(self, input_ids: Tensor, *, adapter: Selection = None, attention_mask: Tensor | None = None) -> Tensor:
        """Logits ``(batch, sequence, vocabulary)`` for token ids ``(batch, sequence)``, whatever adapter is in use.

        Virtual tokens are put before each row, and their logits are left out.
        """
        _check_rows(adapter, len(input_ids))
        with self.using(adapter):
            ids, mask = self.make_room(input_ids, attention_mask)
            check_padding(self.model, mask)
            places = {}
            if mask is not None and "position_ids" in inspect.signature(self.model.forward).parameters:
                # counted from each row's first token: how far its neighbours are padded is no matter to a row
                places = {"position_ids": (mask.cumsum(-1) - 1).clamp_min(0)}
            logits = self.model(input_ids=ids, attention_mask=mask, use_cache=False, **places).logits
        return logits[:, logits.shape[1] - input_ids.shape[1] :]  # type: ignore[no-any-return]

    def make_room(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Ids and mask for :attr:`model`, ``(batch, sequence)``, with what the adapter in force here puts before each row.

        Raises:
            DataError: An id that the base does not know: it would be taken for a virtual token.
        """
        if input_ids.numel():
            check_known(self.model, (int(input_ids.max()),))
        prefix, virtual = self.room(len(input_ids))
        return prepend(prefix, *prepend(virtual, input_ids, attention_mask))

    def room(self, rows: int) -> tuple[list[list[int]], list[list[int]]]:
        """For each of ``rows`` rows, ids that hold the place of a prefix, and those of virtual tokens; mostly none.

        They are numbers from the size of the vocabulary on. A prefix goes before all else in a batch, padding included.
        """
        return room(self.runtime.plan, self.model.get_input_embeddings().num_embeddings, rows)

    def choice(self, adapter: Selection | Active) -> Selection:
        """``adapter``, or what is in use where none was named."""
        return self.active if isinstance(adapter, Active) else adapter

    def __repr__(self) -> str:
        held = f"{len(self._residents)} adapters resident, {self.active or 'none'} in use"
        return f"<{type(self).__name__} {self.source.name}: {held}>"


def _check_rows(adapter: Any, rows: int) -> None:
    if isinstance(adapter, (list, tuple)) and len(adapter) != rows:
        raise SelectionError(f"{len(adapter)} adapters for {rows} rows: give one for each row, or a single one for all")
