"""The method that is checked, and what checks need around it: tiny bases, training runs, adapters."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

import attrs
import torch
from safetensors.torch import save_model

from adapterkit.base import Base
from adapterkit.config import build_config, option_names
from adapterkit.errors import UnknownNameError
from adapterkit.registry import Registry
from adapterkit.resident import build_layers

from .models import FAMILIES
from .outcomes import DoesNotApply
from .watching import Seen, Watcher
from .words import ROWS, tiny_tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn

    from adapterkit.adapter import Adapter
    from adapterkit.contracts import Method

__all__ = ["Subject"]

RUN = {
    "max_steps": 6,
    "learning_rate": 1e-2,
    "lr_scheduler_type": "constant",
    "warmup_ratio": 0.0,
    "packing": False,
}
"""A run whose adapter changes the answers of a tiny base plainly, whatever the method."""


class Subject:
    """A method, with the options that it is checked with, in a registry of its own.

    Args:
        name: The method's name.
        plugin: Where the method comes from when it is not installed: a file, a module or an object, or a list of them.
        options: The method's options; its defaults otherwise.
    """

    def __init__(self, name: str, *, plugin: Any = None, options: Mapping[str, Any] | None = None) -> None:
        self.name, self.options = name, dict(options or {})
        self.registry = Registry()
        self.plugins = _listed(plugin)
        for one in self.plugins:
            self.registry.add(one)
        self._watcher = Watcher()
        self.registry.add(self._watcher)
        self._remembered: dict[Any, Any] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="adapterkit-check-")

    @functools.cached_property
    def method(self) -> Method:
        """The method itself."""
        return self.registry.method(self.name)

    @property
    def folder(self) -> Path:
        """A folder for whatever a check writes."""
        return Path(tempfile.mkdtemp(dir=self._folder.name))

    # -- bases --------------------------------------------------------------------------------------------------------

    def base(
        self,
        family: str = "llama",
        *,
        plain: bool = False,
        dtype: str = "float32",
        quantize: str = "",
        folder: bool = False,
    ) -> Base:
        """A new base of a family, quantized as the method wants it for training.

        Args:
            family: One of :data:`~adapterkit.testing.models.FAMILIES`.
            plain: Whether it is in float32 whatever the method wants.
            dtype: The dtype of what is not quantized.
            quantize: Such as ``"nf4"``, where the method wants nothing.
            folder: Whether it is loaded from files.
        """
        wanted: dict[str, Any] = {} if plain else dict(self._wanted)
        if quantize:
            wanted = {"quantize": quantize, **wanted}
        if not wanted and dtype == "float32" and not folder:
            return Base(FAMILIES[family](), tokenizer=tiny_tokenizer(), registry=self.registry)
        if wanted:
            need("bitsandbytes")
        location = self._model_folder(family)
        return Base(location, tokenizer=tiny_tokenizer(), registry=self.registry, dtype=dtype, device="cpu", **wanted)

    @functools.cached_property
    def _wanted(self) -> dict[str, Any]:
        wanted = self.method.base_options(self.config())
        return {name: value for name, value in wanted.items() if value is not None}

    def _model_folder(self, family: str) -> Path:
        folder = Path(self._folder.name) / family
        if not folder.exists():
            folder.mkdir()
            model = FAMILIES[family]()
            model.config.save_pretrained(folder)
            save_model(model, str(folder / "model.safetensors"), metadata={"format": "pt"})
        return folder

    # -- the method's life --------------------------------------------------------------------------------------------

    def config(self, base: Base | None = None, **changes: Any) -> Any:
        """The method's configuration with changed options; resolved for ``base`` where one is given."""
        known = option_names(self.method.config)
        mine = {name: value for name, value in {**self.options, **changes}.items() if name in known}
        config: Any = build_config(self.method.config, mine, what=f"options of method {self.name!r}")
        if base is None:
            return config
        return self.registry.call("configure", self.method, config=config, sites=base.sites)

    def layers(self, base: Base, **changes: Any) -> nn.ModuleDict:
        """Fresh layers for ``base``, as they come from ``build``, with changed options."""
        config = self.config(base, **changes)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return build_layers(self.registry, self.method, config, base.sites)

    def variants(self) -> list[dict[str, Any]]:
        """Changes of the options, one at a time, whose values follow from their annotations: flags, and choices of words."""
        hints = get_type_hints(self.method.config)
        free = [field for field in attrs.fields(self.method.config) if field.name not in self.options]
        return [{field.name: value} for field in free for value in _others(hints[field.name], field)]

    def train(self, base: Base, number: int = 0, **options: Any) -> Seen:
        """Train an adapter through :meth:`Base.train`, and say what was seen; each number trains another adapter."""
        rows = [*ROWS[number:], *ROWS[:number]][: len(ROWS) - number]
        self._watcher.seen = seen = Seen()
        try:
            seen.adapter = base.train(rows, method=self.name, **{**RUN, "seed": number, **self.options, **options})
        finally:
            self._watcher.seen = None
        return seen

    def adapter(self, number: int = 0, family: str = "llama") -> Adapter:
        """A trained adapter for bases of a family; made once."""
        made: Adapter = self.remember((family, number), lambda: self.train(self.base(family), number).adapter)
        return made

    def saved(self) -> dict[str, Any]:
        """What another process needs to load the adapter: folders of the adapter and its base, and how the base is loaded."""
        return {
            "folder": str(self.adapter().save(self.folder / "adapter", registry=self.registry)),
            "base": str(self._model_folder("llama")),
            "options": {"dtype": "float32", **self._wanted},
        }

    def remember(self, key: Any, make: Callable[[], Any]) -> Any:
        """What ``make`` gives, made once."""
        if key not in self._remembered:
            self._remembered[key] = make()
        return self._remembered[key]

    @functools.cached_property
    def neighbour(self) -> Adapter | None:
        """An adapter of another method for the Llama, where a method called ``lora`` is installed."""
        try:
            self.registry.method("lora")
        except UnknownNameError:
            return None
        options: dict[str, Any] = {**RUN, "rank": 3, "seed": 7}
        return self.base(plain=True).train(list(ROWS), method="lora", **options)

    def __repr__(self) -> str:
        return f"<Subject {self.name} {self.options}>"


def _others(hint: Any, field: attrs.Attribute[Any]) -> list[Any]:
    """Values that an option may have beside its default, as far as its annotation tells."""
    if field.name == "target_modules":
        return [("embed_tokens",), ("lm_head",), ("embed_tokens", "lm_head")]
    if hint is bool:
        return [not field.default]
    values = [value for one in (hint, *get_args(hint)) if get_origin(one) is Literal for value in get_args(one)]
    if any(one == tuple[int, ...] for one in (hint, *get_args(hint))):
        values.append((1,))
    return [value for value in values if value != field.default]


def need(package: str) -> None:
    """Say that a check does not apply without a package that is not installed."""
    import importlib.util

    if importlib.util.find_spec(package) is None:
        raise DoesNotApply(f"{package} is not installed")


def _listed(plugin: Any) -> tuple[Any, ...]:
    if plugin is None:
        return ()
    return tuple(plugin) if isinstance(plugin, Sequence) and not isinstance(plugin, str) else (plugin,)
