"""The engine: answers many requests at once on one base, each with adapters of its own."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakValueDictionary

from adapterkit.adapter import Adapter
from adapterkit.compose import Blend, not_acting
from adapterkit.config import build_config
from adapterkit.contracts import Text
from adapterkit.errors import AdapterkitError, ConfigError, SelectionError
from adapterkit.generation import context_of
from adapterkit.sizes import parse_size

from .answering import Answer
from .asking import AskOptions, Choice
from .catalogue import Catalogue
from .jobs import Job
from .loop import Loop
from .options import EngineOptions
from .prompts import Prompts
from .residency import Residency
from .stepping import RANKS, Runner
from .stepping.choosing import Chooser
from .stepping.constraints import Constraints
from .stepping.positions import check_positions
from .watching import Watcher, Watchers

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Sequence

    from adapterkit.base import Base
    from adapterkit.compose import Acting
    from adapterkit.generation import Prompt
    from adapterkit.store import Store

    from .loop import Stats
    from .served import Served


__all__ = ["Engine"]

GIB = 2**30
KV_SHARE = 0.8
"""Of a GPU's free memory, for keys and values: the rest is for what a step computes."""
COMPOSED_SHARE = 2
"""What several adapters do together may take half as much again as the adapters."""


class Engine:
    """Answers many requests at once on one base: each names its adapters, and all kinds of them share the batch.

    It has a thread of its own, and is used from any other. The base stays usable beside it.

    Args:
        base: The base.
        adapters: What may be asked for by a name of your choice: adapters, stacks, blends, folders, references of the store, or
            addresses such as ``"hf://org/cards@v2"``.
        store: A store whose names may be asked for too: ``cards``, ``cards@3``, ``cards@production``.
        base_name: What asks for the base alone; the base's own name by default.
        watcher: Is told what the engine does.
        **options: See :class:`adapterkit.serving.EngineOptions`.

    Raises:
        SelectionError: The base is not of a kind that the engine serves.
        ConfigError: Options that do not fit, or no room for keys and values.
    """

    def __init__(
        self,
        base: Base,
        adapters: Mapping[str, Acting | str | os.PathLike[str]] | None = None,
        *,
        store: Store | None = None,
        base_name: str = "",
        watcher: Watcher | None = None,
        **options: Any,
    ) -> None:
        self.options = build_config(EngineOptions, options, what="options of the engine")
        _check_given(base, adapters)
        self.base, self.watcher = base, watcher or Watcher()
        self._told = Watchers(self.watcher)
        most = min(context_of(base), self.options.max_length or 2**31)
        check_positions(base.model.config, most)
        sizes = _sizes(self.options, base)
        self._runner = Runner(
            base,
            kv_bytes=sizes["kv_memory"],
            most_tokens=most * self.options.max_batch * 2,
            reuse=self.options.prefix_cache,
            graphed_rows=self.options.max_batch if self.options.cuda_graphs and base.device.type == "cuda" else 0,
        )
        self._longest = min(most, (self._runner.pool.pages - 1) * self._runner.pool.page_size)
        self._prompts = Prompts(base, self._longest)
        self._constraints = Constraints(base.tokenizer, self._runner.vocabulary, self._prompts.stop_ids)
        self._given: WeakValueDictionary[str, Adapter] = WeakValueDictionary()
        self.catalogue = Catalogue(base, adapters or {}, store=store, base_name=base_name)
        self.residency = Residency(
            base,
            self._fetch,
            device_bytes=sizes["adapter_memory"],
            host_bytes=sizes["host_memory"],
            watcher=self._told,
        )
        self._loop = Loop(
            self._runner,
            self.residency,
            self.options,
            self._told,
            composed_bytes=sizes["adapter_memory"] // COMPOSED_SHARE,
        )

    # -- asking

    def submit(
        self,
        prompt: Prompt | Sequence[int],
        *,
        model: str = "",
        adapter: Acting | None = None,
        key: str = "",
        id: str = "",  # noqa: A002 - the field's name for it
        **options: Any,
    ) -> Answer:
        """Ask for an answer; it is made meanwhile.

        Args:
            prompt: A text is what a user says; :class:`~adapterkit.Text` is gone on from as it is; turns, as of
                :meth:`adapterkit.Base.generate`; or token ids.
            model: Names what answers: ``"cards"``, ``"cards@3"``, ``"cards@production"``, ``"cards+tone"``,
                ``"cards*0.7+tone*0.3"``; nothing, or the base's own name, is the base alone. What a name means is settled now: an
                alias that moves later changes nothing of this request.
            adapter: An adapter, a stack or a blend itself, instead of a name.
            key: Who asks, where there are limits for each.
            id: The request's; one is made without it.
            **options: See :class:`adapterkit.serving.AskOptions`.

        Raises:
            UnknownNameError: Nothing of that name is served.
            DataError: The prompt cannot be used.
            ConfigError: Options that do not fit.
            SelectionError: The prompt and its answer are longer than the engine keeps.
            OverloadedError: Too many requests wait already.
            EngineError: The engine is stopped, or has failed.
        """
        try:
            return self._submit(prompt, model, adapter, key, id, options)
        except AdapterkitError as error:
            self._told.refused(model, error)
            raise

    def _submit(
        self, prompt: Any, model: str, adapter: Acting | None, key: str, name: str, options: dict[str, Any]
    ) -> Answer:
        self._loop.check_alive()
        chosen = build_config(AskOptions, options, what="options of the request")
        choice, kept = self._choice(model, adapter)
        tokens = self._prompts.read(prompt)
        if options.get("max_new_tokens") and len(tokens) + options["max_new_tokens"] > self._longest:
            raise SelectionError(
                f"a prompt of {len(tokens)} tokens and {chosen.max_new_tokens} new ones do not fit into the engine's "
                f"{self._longest}: shorten the prompt or lower max_new_tokens"
            )
        answer = Answer(name or uuid.uuid4().hex, choice, len(tokens), on_cancel=self._loop.wake)
        seconds = chosen.timeout or self.options.timeout
        job = Job(
            answer=answer,
            options=chosen,
            prompt=tokens,
            chooser=Chooser(
                chosen,
                self._runner.device,
                None if chosen.json_schema is None else self._constraints.make(chosen.json_schema),
            ),
            typed=self._prompts.typed(prompt, chosen.stop),
            stop_ids=self._prompts.stop_ids,
            most=self._longest,
            key=key,
            until=time.monotonic() + seconds if seconds else None,
            kept=kept,
        )
        self._loop.put(job)
        return answer

    def generate(
        self, prompts: Any, *, model: str = "", adapter: Acting | None = None, **options: Any
    ) -> str | list[str]:
        """Answer prompts, all at once, and wait for the answers; takes what :meth:`submit` takes.

        Returns:
            The answers, in the order of the prompts; a single text for a single text.
        """
        if isinstance(prompts, (str, Text)):
            return self.submit(prompts, model=model, adapter=adapter, **options).result()
        answers: list[Answer] = []
        try:
            for prompt in prompts:
                answers.append(self.submit(prompt, model=model, adapter=adapter, **options))  # noqa: PERF401 - those before one that is refused are given up
            return [answer.result() for answer in answers]
        finally:
            for answer in answers:
                answer.cancel()

    def stream(self, prompt: Prompt | Sequence[int], **asked: Any) -> Iterator[str]:
        """The text of an answer, piece by piece; takes what :meth:`submit` takes. Leaving it early cancels the request."""
        answer = self.submit(prompt, **asked)
        try:
            for piece in answer:
                if piece.text:
                    yield piece.text
        finally:
            answer.cancel()

    def add(
        self, name: str, source: Acting | str | os.PathLike[str], *, who: str = "", replace: bool = False
    ) -> Served:
        """Serve an adapter under a name from now on; raises as :meth:`adapterkit.serving.catalogue.Catalogue.add`.

        Args:
            name: The name.
            source: An adapter, a folder, a reference of the store or an address; without a store also a blend.
            who: Who adds it, for the store's journal.
            replace: Whether the name may be in use already; requests under way keep what it meant.
        """
        served = self.catalogue.add(name, source, who=who, replace=replace)
        self._let_go()
        return served

    def remove(self, name: str, *, who: str = "") -> None:
        """Serve a name no more; requests under way are answered, and then its memory is free. Nothing on disk is deleted.

        Raises:
            UnknownNameError: Nothing of that name is served.
        """
        self.catalogue.remove(name, who=who)
        self._let_go()

    def stats(self) -> Stats:
        """What it does now."""
        return self._loop.stats()

    @property
    def state(self) -> str:
        """``"ready"``, ``"draining"``, ``"stopping"``, ``"stopped"`` or ``"failed"``."""
        return self._loop.state

    @property
    def max_length(self) -> int:
        """The most tokens of a prompt and its answer together."""
        return self._longest

    def close(self, *, drain: float = 0.0) -> None:
        """Take no more requests, give those under way ``drain`` seconds, cancel the rest, and stop.

        The base, and what it has in its own memory, stay as they are.
        """
        self._loop.close(drain=drain)
        self.residency.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Engine {self.base.source.name}: {self.state}>"

    # -- for submit

    def _choice(self, model: str, adapter: Acting | None) -> tuple[Choice, list[Adapter]]:
        """What a request acts with, and adapters that are nowhere but in memory, to be kept as long as the request."""
        if adapter is None:
            choice = self.catalogue.resolve(model)
            kept = self.catalogue.values(choice)
        elif model:
            raise ConfigError("options of the request do not fit", ["give model or adapter, and not both"])
        else:
            if not isinstance(adapter, (Adapter, Blend)):
                raise SelectionError(not_acting(adapter))
            parts = adapter.parts if isinstance(adapter, Blend) else ((adapter, 1.0),)
            kept = [one for one, _ in parts]
            name = "+".join(one.digest[:12] for one in kept)
            choice = Choice(name, tuple((one.digest, weight) for one, weight in parts), name)
        for one in kept:
            self._given[one.digest] = one
        return choice, kept

    def _let_go(self) -> None:
        """Hold nothing any more that has no name."""
        for digest in self.catalogue.gone():
            self.residency.drop(digest)

    def _fetch(self, digest: str) -> Adapter:
        given = self._given.get(digest)
        return given if given is not None else self.catalogue.fetch(digest)


def _check_given(base: Any, adapters: Any) -> None:
    problems = []
    if not hasattr(base, "sites"):
        problems.append(f"base: a Base answers, not {base!r:.200}; open it first: Base({base!r:.200})")
    if adapters is not None and not isinstance(adapters, Mapping):
        problems.append("adapters: each needs a name to be asked for by, as in {'cards': adapter}")
    if problems:
        raise ConfigError("an engine cannot be made", problems)


def _rank_bytes(base: Base) -> int:
    """What one rank takes at all linear sites together."""
    sizes = (site.in_features + site.out_features for site in base.sites if site.kind == "linear")
    return sum(sizes) * base.dtype.itemsize


def _sizes(options: EngineOptions, base: Base) -> dict[str, int]:
    """How many bytes each budget has."""
    defaults = {"kv_memory": GIB, "adapter_memory": GIB, "host_memory": 4 * GIB}
    if base.device.type == "cuda":
        import torch

        free, total = torch.cuda.mem_get_info(base.device)
        defaults["adapter_memory"] = min(total // 8, free // 2)
        stacked = options.cuda_graphs * RANKS * options.max_batch * _rank_bytes(base)
        defaults["kv_memory"] = int((free - stacked - defaults["adapter_memory"] * (1 + 1 / COMPOSED_SHARE)) * KV_SHARE)
    given = {name: getattr(options, name) for name in defaults}
    return {
        name: default if given[name] is None else parse_size(given[name], name) for name, default in defaults.items()
    }
