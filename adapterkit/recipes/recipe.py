"""A merge as a value: which adapters, how, in how many stages; read from YAML in mergekit's words, or from mappings."""

from __future__ import annotations

import os
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from adapterkit.compose import is_finite
from adapterkit.errors import ConfigError, suggest
from adapterkit.publishing import is_named
from adapterkit.yaml_file import Lines, read_documents

__all__ = ["Parent", "Recipe", "Stage", "read_recipe"]

DEFAULT = "cat"
OF_MODELS = {
    "chat_template": "an adapter has none",
    "dtype": "adapters are merged in float32",
    "out_dtype": "adapters are merged in float32",
    "slices": "adapters keep the layers that they are for",
    "tokenizer": "an adapter has none",
    "tokenizer_source": "an adapter has none",
}
"""Fields of mergekit's that say nothing of adapters."""
ELSEWHERE = {
    "adapters": "write `adapters` beside parameters",
    "base": "write `base_model` beside parameters",
    "rank": "write `rank` beside parameters",
    "registry": "give it to run_recipe",
    "seed": "write `seed` beside parameters",
    "space": "write `space` beside parameters",
    "strategy": "write `merge_method` beside parameters",
    "weights": "write the `weight` of each adapter",
}
"""Where what :func:`adapterkit.merge` takes besides a strategy's options is said."""
MOST = 2**63
"""Whole numbers are smaller."""


@attrs.frozen(kw_only=True)
class Parent:
    """One of the adapters of a stage.

    Attributes:
        adapter: Its folder, from the recipe's on; the name of an earlier stage; a reference of the store, or an address.
        weight: How strongly it counts; None where no weights are given.
    """

    adapter: str
    weight: float | None = None


@attrs.frozen(kw_only=True)
class Stage:
    """One merge.

    Attributes:
        adapters: What is merged.
        name: What later stages call the result.
        merge_method: The strategy.
        parameters: The strategy's options.
        rank: The most directions of the result at each site.
        seed: Governs what the strategy draws at random.
        space: What the strategy is given: whole changes of ``"weights"``, or ``"factors"``, as PEFT does; see
            :func:`adapterkit.merge`.
        base_model: The base, for what cannot be said without its weights: a folder from the recipe's on, or a Hub id.
        where: Where it stands, for errors.
    """

    adapters: tuple[Parent, ...]
    name: str = ""
    merge_method: str = DEFAULT
    parameters: Mapping[str, Any] = attrs.field(factory=dict)
    rank: int | None = None
    seed: int = 0
    space: str = "weights"
    base_model: str | None = None
    where: str = attrs.field(default="", eq=False)

    @property
    def weights(self) -> list[float]:
        """Those of the adapters, in order; 1 where none is given, as in :func:`adapterkit.merge`."""
        return [1.0 if one.weight is None else one.weight for one in self.adapters]


@attrs.frozen(kw_only=True)
class Recipe:
    """Stages in order; the last one's result is the adapter.

    Attributes:
        stages: At least one.
        folder: What paths in it begin at.
    """

    stages: tuple[Stage, ...]
    folder: Path = Path()


def read_recipe(source: str | os.PathLike[str] | Mapping[str, Any] | Sequence[Mapping[str, Any]] | Recipe) -> Recipe:
    """A recipe from its file, or from what such a file says.

    Args:
        source: A YAML or JSON file of up to a megabyte, whose documents (between ``---``) or whose list are the stages; or a
            mapping, or several. A file may hold no aliases and no tags.

    Raises:
        ConfigError: All that is wrong with it, each with its line; adapters that are not there as well.
    """
    if isinstance(source, Recipe):
        problems = _missing(source.stages, source.folder)
        if problems:
            raise ConfigError("the recipe does not fit", problems)
        return source
    folder, name = Path(), ""
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        documents = [one for one in read_documents(path, "the recipe") if one is not None]
        folder, name = path.parent, str(path)
        source = documents[0] if len(documents) == 1 else documents
    listed = list(source) if isinstance(source, Sequence) else [source]
    problems = []
    stages = [_Reader(one, number, name, problems).stage() for number, one in enumerate(listed, 1)]
    if not listed:
        problems.append(f"{name or 'it'}: is empty; write merge_method and adapters")
    if not problems:
        _check_names(stages, problems)
    problems += _missing(stages, folder)
    if problems:
        raise ConfigError("the recipe does not fit", problems)
    return Recipe(stages=tuple(stages), folder=folder)


class _Reader:
    """Reads one stage; what is wrong is collected."""

    def __init__(self, values: Any, number: int, file: str, problems: list[str]) -> None:
        self._values, self._file, self._problems = values, file, problems
        self._stage = f"stage {number}"

    def stage(self) -> Stage:
        """The stage, or what of it can be read."""
        values = self._values
        if not isinstance(values, Mapping):
            self._problems.append(f"{self._where(values)}: must be a mapping with merge_method and adapters")
            return Stage(adapters=())
        self._check_names(values, [field.name for field in attrs.fields(Stage) if field.name != "where"] + ["models"])
        return Stage(
            adapters=self._parents(),
            name=self._text("name", ""),
            merge_method=self._text("merge_method", DEFAULT),
            parameters=self._parameters(),
            rank=self._whole("rank", None, least=1),
            seed=self._whole("seed", 0, least=0) or 0,
            space=self._text("space", "weights"),
            base_model=self._text("base_model", None),
            where=self._where(values),
        )

    def _parents(self) -> tuple[Parent, ...]:
        values, word = self._values, "models" if "models" in self._values else "adapters"
        if "models" in values and "adapters" in values:
            self._problem(values, "models", "adapters are given as well; give one of the two")
        listed = values.get(word)
        if not isinstance(listed, (list, tuple)) or not listed:
            self._problem(values, word, "must be a list, such as `- {adapter: out/cards, weight: 0.7}`")
            return ()
        parents = tuple(self._parent(one, values, word) for one in listed)
        if len({one.weight is None for one in parents}) > 1:
            self._problem(values, word, "some have a weight and some have none; give each one")
        return parents

    def _parent(self, values: Any, above: Mapping[str, Any], word: str) -> Parent:
        if isinstance(values, (str, os.PathLike)):
            return Parent(adapter=os.fspath(values))
        name = "model" if isinstance(values, Mapping) and "model" in values else "adapter"
        if not isinstance(values, Mapping) or not isinstance(values.get(name), (str, os.PathLike)):
            self._problem(values if isinstance(values, Lines) else above, word, f"{_shown(values)} names no adapter")
            return Parent(adapter="")
        self._check_names(values, [name, "weight", "parameters"])
        own = values.get("parameters", {})
        if not isinstance(own, Mapping) or set(own) - {"weight"}:
            extra = ", ".join(sorted(map(str, set(own) - {"weight"}))) if isinstance(own, Mapping) else _shown(own)
            self._problem(values, "parameters", f"{extra}: only weight is an adapter's own; others are the stage's")
            own = {}
        if "weight" in values and "weight" in own:
            self._problem(values, "weight", "is given twice")
        weight = values.get("weight", own.get("weight"))
        if weight is not None and not _is_number(weight):
            where = values if "weight" in values else own
            self._problem(where, "weight", f"must be a finite number, not {_shown(weight)}")
            weight = None
        return Parent(adapter=os.fspath(values[name]), weight=None if weight is None else float(weight))

    def _parameters(self) -> dict[str, Any]:
        given = self._values.get("parameters") or {}
        if not isinstance(given, Mapping):
            self._problem(self._values, "parameters", f"must be a mapping of options, not {_shown(given)}")
            return {}
        for name in [name for name in given if name in ELSEWHERE]:
            self._problem(given, name, f"is no option of a strategy: {ELSEWHERE[name]}")
        return dict(_ours(str(name), value) for name, value in given.items())

    def _text(self, name: str, default: Any) -> Any:
        value = self._values.get(name, default)
        if value is not default and not isinstance(value, str):
            self._problem(self._values, name, f"must be a text, not {_shown(value)}")
            return default
        return value

    def _whole(self, name: str, default: Any, least: int) -> Any:
        value = self._values.get(name, default)
        if value is not default and (type(value) is not int or not least <= value < MOST):
            self._problem(self._values, name, f"must be a whole number from {least} on, not {_shown(value)}")
            return default
        return value

    def _check_names(self, values: Mapping[str, Any], known: list[str]) -> None:
        for name in values:
            if name in OF_MODELS and name not in known:
                self._problem(values, name, f"is for whole models: {OF_MODELS[name]}")
            elif name not in known:
                self._problem(values, name, f"no such field{suggest(str(name), known)}")

    def _problem(self, values: Any, name: str, said: str) -> None:
        self._problems.append(f"{self._where(values, name)}: {name}: {said}")

    def _where(self, values: Any, name: str = "") -> str:
        if not isinstance(values, Lines):
            return f"{self._file}, {self._stage}" if self._file else self._stage
        return f"{self._file}, line {values.lines.get(name, values.line)}"


def _check_names(stages: Sequence[Stage], problems: list[str]) -> None:
    """That each result is called by a name of its own, after it was made, and by something."""
    places = {stage.name: number for number, stage in enumerate(stages) if stage.name}
    used = {parent.adapter for stage in stages for parent in stage.adapters}
    for number, stage in enumerate(stages):
        if stage.name and places[stage.name] != number:
            problems.append(f"{stage.where}: name: another stage is called {stage.name!r} too")
        if number < len(stages) - 1 and stage.name not in used:
            said = "nothing is made of its result" if stage.name else "must have a name, for later stages to call it by"
            problems.append(f"{stage.where}: {said}")
        problems += [
            f"{stage.where}: {parent.adapter!r} is made by a later stage; write that one first"
            for parent in stage.adapters
            if places.get(parent.adapter, -1) >= number
        ]


def _missing(stages: Sequence[Stage], folder: Path) -> list[str]:
    """Adapters that are neither stages nor there; those whose names could not be read are left out."""
    names = {stage.name for stage in stages} - {""}
    cure = f", and no stage has that name: {', '.join(sorted(names))}" if names else ""
    return [
        f"{stage.where}: there is no adapter at {str(folder / one.adapter)!r:.200}{cure}"
        for stage in stages
        for one in stage.adapters
        if one.adapter and one.adapter not in names and not is_named(one.adapter, folder)
    ]


def _ours(name: str, value: Any) -> tuple[str, Any]:
    """An option as strategies have it here: ``lambda`` is no name in Python, and ``normalize`` says by what."""
    if name == "normalize" and isinstance(value, bool):
        return name, "weights" if value else "none"
    return ("scaling" if name == "lambda" else name), value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and is_finite(value)


def _shown(value: Any) -> str:
    """A value as errors show it: a short text, however large it is."""
    try:
        return f"{reprlib.repr(value):.80}"
    except ValueError:  # Python writes no whole number of over 4,300 digits
        return "a number of too many digits"
