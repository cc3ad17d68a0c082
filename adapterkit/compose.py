"""Several adapters at once, as values: :class:`Blend` gives each a weight, :class:`Stack` gives all of them the weight one."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import numbers
import os
import reprlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs

from .adapter import Adapter
from .artifact.files import read_bytes, true_path
from .artifact.layout import MOST_JSON_BYTES
from .artifact.manifest import json_digest
from .artifact.strict_json import parse_object
from .config import canonical_json
from .errors import ArtifactError, SelectionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .registry import Registry

__all__ = [
    "Acting",
    "Blend",
    "Stack",
    "blended_folders",
    "is_finite",
    "load_acting",
    "named_parts",
    "not_acting",
    "parse",
]

SCHEMA = 1
MOST_PARTS = 1000


@attrs.frozen(eq=False, slots=False, init=False, repr=False)
class Blend:
    """Adapters that act at once: each changes the base's weights by its own change, times its weight.

    ``Blend({cards: 0.7, tone: 0.3})`` is the base plus 0.7 times what ``cards`` changes plus 0.3 times what ``tone`` does; a
    negative weight takes a skill away. Each change is counted from the base alone, so that the order of parts does not matter,
    but for soft prompts and prefixes: these stand before the sequence in the order of the parts, and have the weight 1.

    A blend may hold others; it is then the blend of their parts.

    Args:
        parts: A weight for each adapter.

    Attributes:
        parts: Adapters and weights, in order.

    Raises:
        SelectionError: No parts, the same adapter twice, or a weight that is no finite number.
    """

    parts: tuple[tuple[Adapter, float], ...]

    def __init__(self, parts: Mapping[Acting, float]) -> None:
        if not isinstance(parts, Mapping):
            raise SelectionError(
                f"a Blend is made of a weight for each adapter: Blend({{cards: 0.7, tone: 0.3}}), not {parts!r}"
            )
        object.__setattr__(self, "parts", _flat(parts.items()))

    @property
    def adapters(self) -> tuple[Adapter, ...]:
        """The adapters alone, in order."""
        return tuple(adapter for adapter, _ in self.parts)

    @functools.cached_property
    def digest(self) -> str:
        """The sha256 of its adapters' digests and weights, in order."""
        return json_digest([[adapter.digest, weight] for adapter, weight in self.parts])

    def save(
        self, file: str | os.PathLike[str], folders: Mapping[Adapter, str | os.PathLike[str]] | None = None
    ) -> Path:
        """Write which adapters it is made of, by digest, as JSON; the adapters themselves are not copied.

        Args:
            file: The file to write; one that exists is replaced.
            folders: Where adapters are saved, to be looked for there by :meth:`load`; written relative to ``file``.

        Returns:
            The file.

        Raises:
            ArtifactError: It cannot be written; what was there is as it was.
        """
        target = Path(file)
        try:
            here = os.path.realpath(target.parent)
            known = {adapter.digest: os.path.realpath(folder) for adapter, folder in (folders or {}).items()}
            parts: list[dict[str, Any]] = []
            for adapter, weight in self.parts:
                place = known.get(adapter.digest)
                where = {} if place is None else {"folder": Path(os.path.relpath(place, here)).as_posix()}
                parts.append({"digest": adapter.digest, "weight": weight, **where})
            text = canonical_json({"schema": SCHEMA, "digest": self.digest, "parts": parts})
            target.parent.mkdir(parents=True, exist_ok=True)
            _write(target, json.dumps(json.loads(text), indent=2) + "\n")
        except (OSError, ValueError) as error:  # a path that holds a NUL is a ValueError
            raise ArtifactError(f"{str(target)!r} cannot be written: {error}") from error
        return target

    @classmethod
    def load(
        cls, file: str | os.PathLike[str], adapters: Iterable[Adapter] = (), *, registry: Registry | None = None
    ) -> Blend:
        """Read what :meth:`save` wrote, and find its adapters: among ``adapters``, else in the folders that it names.

        Raises:
            ArtifactError: The file is none, an adapter is not found, or a folder holds another than the one that was meant.
        """
        path = true_path(file)
        parts = _read(path)
        known = {adapter.digest: adapter for adapter in adapters}
        found = [(known.get(one["digest"]) or _fetch(path, one, registry), one["weight"]) for one in parts]
        if len({one for one, _ in found}) < len(found):
            raise ArtifactError(f"{str(path)!r} names an adapter twice")
        return Blend(dict(found))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Blend) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        said = " + ".join(f"{weight:g} × {adapter.digest[:12]}" for adapter, weight in self.parts)
        return f"<{type(self).__name__} {said}>"


class Stack(Blend):
    """Adapters that act together, each as strongly as alone: ``Stack(a, b)`` is ``Blend({a: 1.0, b: 1.0})``.

    Soft prompts stand before the sequence in the order in which they are named.
    """

    def __init__(self, *adapters: Acting) -> None:
        twice = [one for number, one in enumerate(adapters) if one in adapters[:number]]
        if twice:
            raise SelectionError(
                f"{twice[0]!r} is in the stack twice; to act twice as strongly: Blend({{adapter: 2.0}})"
            )
        object.__setattr__(self, "parts", _flat((one, 1.0) for one in adapters))


Acting: TypeAlias = Adapter | Blend
"""What may act on a base: one adapter, or several at once."""


def parse(text: str, find: Callable[[str], Acting]) -> Acting:
    """The adapters that a text such as ``cards``, ``cards+tone`` or ``cards*0.7+tone*-0.3`` means.

    Args:
        text: Names with a plus between them, each with a weight behind a star where it is not 1.
        find: The adapter of a name.

    Raises:
        SelectionError: A name or a weight is missing, or no number; and what ``find`` raises.
    """
    if not set(text) & set("+*"):
        return find(_weighted(text, text)[0])
    parts = [(find(name), weight) for name, weight in named_parts(text)]
    if len({one for one, _ in parts}) < len(parts):
        raise SelectionError(f"{text!r} names an adapter twice; give it one weight")
    return Stack(*(one for one, _ in parts)) if all(weight == 1.0 for _, weight in parts) else Blend(dict(parts))


def load_acting(
    path: str | os.PathLike[str], adapters: Iterable[Adapter] = (), *, registry: Registry | None = None
) -> Acting:
    """What lies at a path, an adapter's folder or a blend's file; needs no base, and raises as these do.

    Args:
        path: The path.
        adapters: Where those of a blend are looked for before they are read.
        registry: Where methods are found.
    """
    is_blend = os.path.isfile(path)  # noqa: PTH113 - it raises nothing, whatever the path
    return Blend.load(path, adapters, registry=registry) if is_blend else Adapter.load(path, registry=registry)


def blended_folders(file: str | os.PathLike[str]) -> list[Path]:
    """The folders that the file of a blend names; raises as :meth:`Blend.load` does."""
    path = true_path(file)
    return [path.parent / part["folder"] for part in _read(path) if part.get("folder")]


def named_parts(text: str) -> list[tuple[str, float]]:
    """The names and the weights in such a text, in order; raises as :func:`parse` does."""
    return [_weighted(piece, text) for piece in text.split("+")]


def _weighted(piece: str, text: str) -> tuple[str, float]:
    name, star, number = piece.partition("*")
    try:
        weight = float(number) if star else 1.0
    except ValueError:
        raise SelectionError(f"{text!r}: {number.strip()!r} is no weight; write name*0.7") from None
    if not name.strip():
        raise SelectionError(f"{text!r} lacks the name of an adapter; write name*0.7+other*0.3")
    return name.strip(), weight


def not_acting(one: Any) -> str:
    """What to say of a value that is no adapter and no blend."""
    cure = ""
    if isinstance(one, (str, os.PathLike)):
        cure = f"; it may lie there: Adapter.load({str(one)!r})"
    elif isinstance(one, (list, tuple)):
        cure = "; name them one by one: Stack(cards, tone)"
    return f"an Adapter, a Stack or a Blend acts, not {one!r:.200}{cure}"


def _flat(given: Iterable[tuple[Any, Any]]) -> tuple[tuple[Adapter, float], ...]:
    """Adapters and weights, with what is itself a blend taken apart."""
    parts: dict[Adapter, float] = {}
    for acting, weight in given:
        number = _number(weight)
        if not isinstance(acting, (Adapter, Blend)):
            raise SelectionError(not_acting(acting))
        inner = acting.parts if isinstance(acting, Blend) else ((acting, 1.0),)
        for adapter, own in inner:
            if adapter in parts:
                raise SelectionError(f"{adapter!r} is in the blend twice; give it one weight")
            parts[adapter] = number * own
            if not math.isfinite(parts[adapter]):
                raise SelectionError(f"the weights {number:g} and {own:g} of {adapter!r} have no finite product")
    if not 1 <= len(parts) <= MOST_PARTS:
        raise SelectionError(f"a blend has 1 to {MOST_PARTS} adapters, not {len(parts)}")
    return tuple(parts.items())


def is_finite(value: Any) -> bool:
    """Whether a value, of whatever kind, is a number that a float can be."""
    return (
        isinstance(value, numbers.Real) and not isinstance(value, bool) and bool(abs(value) <= sys.float_info.max)  # type: ignore[operator]
    )


def _number(weight: Any) -> float:
    if is_finite(weight):
        return float(weight)
    if isinstance(weight, int) and not isinstance(weight, bool):
        raise SelectionError("a weight must be a finite number, and one of them is too large for that")
    raise SelectionError(f"a weight must be a finite number, not {reprlib.repr(weight):.80}")


def _write(target: Path, text: str) -> None:
    """The file is there as a whole, or as it was."""
    staging = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        staging.write_text(text, encoding="utf-8")
        staging.replace(target)
    except BaseException:
        with contextlib.suppress(OSError, ValueError):
            staging.unlink()
        raise


def _read(path: Path) -> list[dict[str, Any]]:
    """The parts that a file names.

    Raises:
        ArtifactError: It is no such file.
    """
    what = repr(str(path))
    try:
        data = read_bytes(path.parent, path.name, MOST_JSON_BYTES)
    except (ArtifactError, OSError) as error:
        raise ArtifactError(f"{what} cannot be read: {error}") from None
    values = parse_object(data, what)
    schema, parts = values.get("schema"), values.get("parts")
    if schema != SCHEMA:
        raise ArtifactError(
            f"{what} is not what Blend.save writes: its schema is {schema!r:.50}, and {SCHEMA} is known here"
        )
    if not isinstance(parts, list) or not 1 <= len(parts) <= MOST_PARTS or not all(map(_is_part, parts)):
        raise ArtifactError(f"{what} is not what Blend.save writes: parts is no list of digests and weights")
    if values.get("digest") != json_digest([[one["digest"], one["weight"]] for one in parts]):
        raise ArtifactError(f"{what} was changed after it was written: its digest does not fit")
    return parts


def _is_part(one: Any) -> bool:
    return (
        isinstance(one, dict)
        and isinstance(one.get("digest"), str)
        and isinstance(one.get("weight"), float)
        and isinstance(one.get("folder", ""), str)
    )


def _fetch(path: Path, part: Mapping[str, Any], registry: Registry | None) -> Adapter:
    digest, folder = part["digest"], part.get("folder")
    if not folder:
        raise ArtifactError(
            f"{str(path)!r} needs the adapter {digest[:12]}, and says nothing of where it is: pass it in"
        )
    adapter = Adapter.load(path.parent / folder, registry=registry)
    if adapter.digest != digest:
        raise ArtifactError(
            f"{str(path)!r} needs the adapter {digest[:12]}, and {folder!r} holds another now: {adapter.digest[:12]}"
        )
    return adapter
