"""Where an adapter comes from: its base, its data, what made it, and the adapters that it was made of, as far as they are known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from .adapter import Adapter
from .artifact.card.making import telling_options
from .artifact.evaluated import forgetting_of, results_of
from .artifact.files import read_bytes
from .artifact.layout import MANIFEST, MOST_JSON_BYTES
from .artifact.record import from_values
from .artifact.strict_json import parse_object
from .config import to_dict
from .errors import ArtifactError, UnknownNameError
from .publishing import find
from .registry import default_registry

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping

    from rich.tree import Tree

    from .artifact.manifest import Manifest
    from .registry import Registry
    from .store import Store

__all__ = ["Lineage", "lineage"]

DATA = {"data": "trained on", "eval_data": "held out", "replay": "mixed in"}
SHORT = 12
MOST = 10_000
"""Adapters that are looked up at most: nobody has merged more, but a manifest may say what it likes."""


@attrs.frozen(kw_only=True)
class Lineage:
    """What is known of an adapter, and of those that it was made of.

    Attributes:
        digest: The adapter's.
        method: Its method.
        weight: With what weight it went into the one above; None for the adapter that was asked about.
        reference: Where the store has it; empty where it was not found there.
        stage: What a recipe calls it; empty elsewhere.
        config: The method's configuration; empty where it is not known.
        manifest: What it says of itself; None where nothing but its digest is known.
        lineage: How it was made of others, as its manifest or a recipe says it; empty for one that was trained.
        parents: Those that it was made of.
        repeated: Whether it stands further up already, with its own parents.
    """

    digest: str
    method: str = ""
    weight: float | None = None
    reference: str = ""
    stage: str = ""
    config: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    manifest: Manifest | None = attrs.field(default=None, repr=False)
    lineage: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    parents: tuple[Lineage, ...] = ()
    repeated: bool = False

    @property
    def made(self) -> str:
        """``"merge"``, ``"extract"``, ``"training"``, or ``"unknown"``."""
        if self.lineage:
            return str(self.lineage.get("kind", "unknown"))
        return "training" if self.manifest is not None and self.manifest.training else "unknown"

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values; what is not known is left out."""
        said = self.manifest
        training = dict(said.training) if said is not None else {}
        data = {name: training.pop(name) for name in DATA if isinstance(training.get(name), dict)}
        how = {name: one for name, one in self.lineage.items() if name not in ("parents", "recipe")}
        values: dict[str, Any] = {
            "digest": self.digest,
            "method": self.method,
            "weight": self.weight,
            "reference": self.reference,
            "stage": self.stage,
            "made": self.made,
            "plugin": said.plugin if said is not None else "",
            "base": to_dict(said.base) if said is not None else {},
            "config": dict(self.config),
            "data": data,
            "training": training,
            "made_of": how,
            "evaluation": dict(said.evaluation) if said is not None else {},
            "versions": dict(said.versions) if said is not None else {},
            "repeated": self.repeated,
            "parents": [one.to_json() for one in self.parents],
        }
        return {name: value for name, value in values.items() if value not in ("", None, {}, [], False)}

    def tree(self) -> Tree:
        """The same as a tree that ``rich`` prints."""
        from rich.text import Text
        from rich.tree import Tree

        tree = Tree(Text(_clean(self._title())))
        if not self.repeated:
            for line in self._lines():
                tree.add(Text(_clean(line)))
        for one in self.parents:
            tree.children.append(one.tree())
        return tree

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(color_system=None, width=500, legacy_windows=False)
        with console.capture() as caught:
            console.print(self.tree())
        return "\n".join(line.rstrip() for line in caught.get().splitlines())

    def _title(self) -> str:
        weight = f"{self.weight:g} × " if self.weight is not None else ""
        name = self.reference or self.stage
        above = " (as above)" if self.repeated else ""
        return f"{weight}{self.method or 'adapter'} {self.digest[:SHORT]}{f' · {name}' if name else ''}{above}"

    def _lines(self) -> Iterator[str]:
        said = self.manifest
        if said is None and not self.lineage:
            yield "nothing more is known here: it is not in the store"
            return
        if said is not None:
            yield from _of_base(said)
        if self.made == "merge":
            yield _of_merge(self.lineage)
        elif self.lineage:
            yield from _of_making(self.lineage)
        if said is not None:
            yield from _of_training(said.training)
            yield from _of_scores(said.evaluation)
            made_with = [said.plugin, *(f"{name} {one}" for name, one in said.versions.items())]
            if any(made_with):
                yield f"made with: {', '.join(dict.fromkeys(filter(None, made_with)))}"


def lineage(
    adapter: Adapter | str | os.PathLike[str], *, store: Store | None = None, registry: Registry | None = None
) -> Lineage:
    """Where an adapter comes from.

    Args:
        adapter: The adapter, its folder, or a reference of the store such as ``"cards@3"``.
        store: Where the adapters that it was made of are looked up, by their digests; without one they are named only.
        registry: The plugins to use.

    Raises:
        ArtifactError: The adapter is refused, or several are named.
    """
    reference = ""
    if not isinstance(adapter, Adapter):
        found = find(adapter, registry=registry or default_registry(), store=store)
        if not isinstance(found, Adapter):
            raise ArtifactError(f"{str(adapter)!r} names several adapters: ask for each of them")
        adapter = found
    if store is not None:
        reference = _reference(store, adapter.digest)
    top = Lineage(
        digest=adapter.digest,
        method=adapter.method,
        reference=reference,
        config=to_dict(adapter.config),
        manifest=adapter.manifest,
        lineage=adapter.manifest.lineage,
    )
    return _Finder(store).with_parents(top)


class _Finder:
    """Looks up parents; each is followed once."""

    def __init__(self, store: Store | None) -> None:
        self._store = store
        self._seen: set[str] = set()

    def with_parents(self, one: Lineage, recipe: Mapping[str, Mapping[str, Any]] | None = None) -> Lineage:
        if one.digest in self._seen and one.parents == () and _parents(one.lineage):
            return attrs.evolve(one, repeated=True)
        self._seen.add(one.digest)
        if len(self._seen) > MOST:
            return one
        stages = recipe if recipe is not None else _stages(one.lineage)
        return attrs.evolve(one, parents=tuple(self._parent(said, stages) for said in _parents(one.lineage)))

    def _parent(self, said: Mapping[str, Any], stages: Mapping[str, Mapping[str, Any]]) -> Lineage:
        digest, weight = str(said["digest"]), said.get("weight")
        found = self._look_up(digest)
        named = {"digest": digest, "weight": float(weight) if isinstance(weight, (int, float)) else None}
        if found is not None:
            return self.with_parents(attrs.evolve(found, **named))
        method, stage = str(said.get("method", "")), stages.get(digest)
        if stage is None:
            return Lineage(method=method, **named)
        # an adapter that a recipe has made on its way and kept nowhere
        made = {"kind": "merge", "strategy": stage.get("merge_method", ""), "parents": stage.get("adapters", [])}
        made |= {name: stage[name] for name in ("rank", "seed", "space") if name in stage}
        one = Lineage(method=method, stage=str(stage.get("name", "")), lineage=made, **named)
        return self.with_parents(one, stages)

    def _look_up(self, digest: str) -> Lineage | None:
        if self._store is None:
            return None
        try:
            version = self._store.resolve(f"sha256:{digest}")
            files = self._store.files(version)
            record = from_values(parse_object(read_bytes(files, MANIFEST, MOST_JSON_BYTES), MANIFEST))
        except UnknownNameError:
            return None
        return Lineage(
            digest=digest,
            method=record.method,
            reference=str(version),
            config=record.config,
            manifest=record.manifest,
            lineage=record.manifest.lineage,
        )


def _reference(store: Store, digest: str) -> str:
    try:
        return str(store.resolve(f"sha256:{digest}"))
    except UnknownNameError:
        return ""


def _parents(lineage: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What a manifest says of the adapters that it was made of."""
    tuned = lineage.get("tuned")
    held = [tuned] if isinstance(tuned, dict) else lineage.get("parents")
    return [one for one in held if isinstance(one, dict) and _is_digest(one.get("digest"))] if isinstance(held, list) else []


def _stages(lineage: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The stages of a recipe by the digest of what each has made."""
    recipe = lineage.get("recipe")
    stages = [one for one in recipe if isinstance(one, dict)] if isinstance(recipe, list) else []
    by_name = {one["name"]: one for one in stages if isinstance(one.get("name"), str)}
    used = [part for one in stages for part in one.get("adapters", ()) if isinstance(part, dict)]
    return {part["digest"]: by_name[part["stage"]] for part in used if part.get("stage") in by_name and "digest" in part}


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64 and all(character in "0123456789abcdef" for character in value)


# -- lines ----------------------------------------------------------------------------------------------------------------


def _of_base(said: Manifest) -> Iterator[str]:
    if said.base.name or said.base.fingerprint:
        revision = f" at {said.base.revision[:SHORT]}" if said.base.revision else ""
        mark = f", fingerprint {said.base.fingerprint[:SHORT]}" if said.base.fingerprint else ""
        yield f"base: {said.base.name or 'unnamed'}{revision}{mark}"


def _of_merge(lineage: Mapping[str, Any]) -> str:
    names = ("rank", "space", "seed")
    options = {**{name: lineage.get(name) for name in names}, **_dict(lineage.get("options"))}
    said = " ".join(f"{name}={value}" for name, value in options.items() if value is not None)
    lost = _dict(lineage.get("lost")).get("overall")
    cut = f"; {lost:.1%} of the change was cut off" if isinstance(lost, (int, float)) and lost else ""
    return f"merged: {lineage.get('strategy', '')} {said}".rstrip() + cut


def _of_making(lineage: Mapping[str, Any]) -> Iterator[str]:
    said = " ".join(f"{name}={lineage[name]}" for name in ("rank", "max_error", "seed", "error") if name in lineage)
    tuned = _dict(lineage.get("tuned"))
    mark = tuned.get("fingerprint")
    of = f" of a model with the fingerprint {str(mark)[:SHORT]}" if mark else ""
    yield f"{lineage.get('kind', 'made')}{of}: {said}"


def _of_training(training: Mapping[str, Any]) -> Iterator[str]:
    for name, what in DATA.items():
        part = _dict(training.get(name))
        if part:
            files = part.get("files")
            named = f"{', '.join(map(str, files))}: " if isinstance(files, list) else ""
            yield f"{what}: {named}{part.get('rows', '?')} rows, digest {str(part.get('digest', ''))[:SHORT]}"
    options = _dict(training.get("options"))
    if options:
        told = telling_options(options, training.get("steps"))
        steps = f"{training['steps']} steps, " if "steps" in training else ""
        quantized = f" on the base in {training['quantize']}" if "quantize" in training else ""
        said = ", ".join(f"{name}={value}" for name, value in told.items())
        yield f"trained{quantized}: {steps}{said}"


def _of_scores(evaluation: Mapping[str, Any]) -> Iterator[str]:
    for one in results_of(evaluation):
        scores = ", ".join(
            f"{name} {value:.4g}" + (f" (base {one.base[name]:.4g})" if name in one.base else "")
            for name, value in one.scores.items()
        )
        yield f"scored on {one.name}: {scores}"
    forgotten = forgetting_of(evaluation)
    if forgotten is not None:
        yield f"forgetting: the perplexity of general text is {forgotten.perplexity:+.1%}"


def _dict(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _clean(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)
