"""``adapterkit diff``."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from adapterkit.artifact.markup import one_line
from adapterkit.differing import diff as run

from .opening import AsJson  # noqa: TC001 - cyclopts reads the annotations
from .plugins import PluginFiles, registry_with
from .tables import print_table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from adapterkit.differing import Changed, Difference, Layer

__all__ = ["diff"]

MOST_LAYERS = 10
MOST_ALONE = 4
"""What only one of the two says is counted where it is more than this."""
LONGEST = 48
DIGEST = re.compile(r"[0-9a-f]{64}.*")


def diff(
    first: Annotated[str, Parameter(help="An adapter's folder, or a reference of the store such as cards@3.")],
    second: Annotated[str, Parameter(help="The other one.")],
    *,
    every: Annotated[
        bool, Parameter(name="--all", help="Show every layer, and not only those that differ most.", negative="")
    ] = False,
    as_json: AsJson = False,
    plugin: PluginFiles = (),
) -> None:
    """Say what differs between two adapters: options, data, scores, and layer by layer what they do."""
    found = run(first, second, registry=registry_with(plugin))
    if as_json:
        print(json.dumps(found.to_json(), indent=2, ensure_ascii=False))
        return
    rows = [("digest", found.first[:12], found.second[:12])] if not found.is_same else []
    if rows or found.parts:
        print_table([["", first, second], *rows, *_parts(found, every=every)])
    for line in _sites(found):
        print(line)
    if found.layers:
        print()
        _print_layers(found, None if every else MOST_LAYERS)


def _parts(found: Difference, *, every: bool) -> Iterator[Sequence[str]]:
    for part, changes in found.parts.items():
        counts = [sum(value is not None for value in values) for values in zip(*_values(changes), strict=True)]
        if not every and not all(counts) and max(counts) > MOST_ALONE:  # only one of them says anything of it
            yield [part, *(f"{count} entries" if count else "–" for count in counts)]
            continue
        yield [part, "", ""]
        for one in changes:
            yield [
                "  " + _shown(one.name),
                _shown(one.first),
                _shown(one.second) + (_gain(one) if part == "scores" else ""),
            ]


def _values(changes: Sequence[Changed]) -> list[tuple[Any, Any]]:
    return [(one.first, one.second) for one in changes]


def _gain(one: Changed) -> str:
    numbers = isinstance(one.first, float) and isinstance(one.second, float)
    return f" ({one.second - one.first:+.4g})" if numbers else ""


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    text = (
        f"{value:.6g}"
        if isinstance(value, float)
        else ", ".join(map(str, value))
        if isinstance(value, list)
        else str(value)
    )
    text = f"{text[:12]}…" if DIGEST.fullmatch(text) else text
    text = one_line(text)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _sites(found: Difference) -> Iterator[str]:
    """What can be said of all layers together."""
    if found.is_same:
        yield "the same adapter"
        return
    for names, what in (
        (found.only_first, "only in the first"),
        (found.only_second, "only in the second"),
        (found.unlike, "of other shapes"),
    ):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            yield f"{len(names)} {what}: {', '.join(names[:3])}{more}"
    both = len(found.layers) + found.same
    if found.overall is not None:
        one = found.overall
        what = "what they do" if one.of == "effect" else "what they hold"
        cosine = "" if one.cosine is None else f", cosine {one.cosine:.4f}"
        relative = "" if one.relative is None else f" by {one.relative:.2%}"
        yield f"{found.same} of {both} layers in both are the same; {what} differs{relative}{cosine}"


def _print_layers(found: Difference, most: int | None) -> None:
    shown = found.layers[:most]
    head = ["layer", "|a - b|", "relative", "cosine", "|a|", "|b|"]
    print_table([head, *([one.name, *map(_number, _numbers(one))] for one in shown)])
    rest = len(found.layers) - len(shown)
    if rest:
        print(f"and {rest} more that differ less: --all shows them")


def _numbers(one: Layer) -> tuple[float | None, ...]:
    return one.distance, one.relative, one.cosine, one.first, one.second


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
