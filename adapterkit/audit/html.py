"""An audit as HTML, made of its JSON alone: a part for reports, and a page that stands alone. Neither fetches anything."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapterkit.errors import DataError

from .findings import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["audit_page", "audit_section", "title_of"]

MOST_LABELS = 15
"""Labels beyond these are folded away."""
TEMPLATES = Path(__file__).parent / "templates"


def audit_section(audit: Mapping[str, Any]) -> str:
    """A ``<section class="audit">`` with a style of its own, for any page; all classes begin with ``audit``.

    Args:
        audit: What :meth:`Audit.to_json` gave, such as the content of ``audit.json``.

    Raises:
        DataError: It is no audit, or one of another version.
    """
    return _render("section.html", audit)


def audit_page(audit: Mapping[str, Any]) -> str:
    """A whole page, light or dark as the reader's system is, for wide screens and phones.

    Raises:
        DataError: It is no audit, or one of another version.
    """
    return _render("page.html", audit)


def title_of(name: str) -> str:
    """``"exact-duplicates"`` as ``"Exact duplicates"``."""
    return f"{name[:1].upper()}{name[1:]}".replace("-", " ")


def _render(template: str, audit: Any) -> str:
    import jinja2
    from markupsafe import Markup

    schema = audit.get("schema") if isinstance(audit, dict) else None
    if schema != SCHEMA:
        raise DataError(
            f"not an audit that can be shown: its schema is {schema!r}, and {SCHEMA} is known; run the audit again"
        )
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"count": _count, "percent": _percent, "bits": _bits, "title_of": title_of}
    try:
        section = environment.get_template("section.html").render(**_view(audit))
        if template == "section.html":
            return section
        # the section is made of a template that escapes, so that it may stand in the page as it is
        return environment.get_template(template).render(audit=audit, about=_about(audit), section=Markup(section))  # noqa: S704
    except (jinja2.TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise DataError(f"not an audit that can be shown: {error}; run the audit again") from error


def _view(audit: dict[str, Any]) -> dict[str, Any]:
    tally = {"serious": 0, "warning": 0, "info": 0}
    for finding in audit["findings"]:
        tally[finding["severity"]] += 1
    return {
        "audit": audit,
        "tally": tally,
        "labels": _labels(audit["labels"]),
        "with_eval": audit["eval_rows"] is not None,
        "most_labels": MOST_LABELS,
        "charts": [_chart(one) for one in audit["lengths"]],
        "memory": _memory(audit["memorisation"]),
    }


def _labels(labels: list[dict[str, Any]]) -> list[dict[str, Any]]:
    most = max((one["rows"] for one in labels), default=0) or 1
    most_eval = max((one["eval_rows"] or 0 for one in labels), default=0) or 1
    return [
        {**one, "width": 100 * one["rows"] / most, "eval_width": 100 * (one["eval_rows"] or 0) / most_eval}
        for one in labels
    ]


def _chart(histogram: dict[str, Any]) -> dict[str, Any]:
    counts, edges = histogram["counts"], histogram["edges"]
    highest, width = max(counts), 100 / len(counts)
    bars = [
        {
            "x": round(place * width, 3),
            "y": round(100 - 100 * count / highest, 3),
            "width": round(0.92 * width, 3),
            "height": round(100 * count / highest, 3),
            "title": f"{edges[place]:,} to {edges[place + 1] - 1:,}: {count:,} rows",
        }
        for place, count in enumerate(counts)
    ]
    longer = "+" if len(edges) > 2 and edges[-1] - edges[-2] > edges[1] - edges[0] else ""
    return {
        **histogram["quantiles"],
        "name": histogram["name"],
        "unit": histogram["unit"],
        "bars": bars,
        "first": edges[0],
        "middle": edges[len(counts) // 2],
        "last": f"{edges[-2] if longer else edges[-1]:,}{longer}",
    }


def _memory(found: dict[str, Any] | None) -> dict[str, Any] | None:
    if not found:
        return None
    verbatim, canaries = found["verbatim"], found["canaries"]
    rows = [
        {"name": f"{name.replace('_', '-')} rows", **verbatim[name]}
        for name in ("training", "held_out")
        if verbatim[name]["rows"]
    ]
    if canaries:
        each = [
            {
                **one,
                **{name: one[name]["exposure"] for name in ("adapter", "base")},
                **{f"{name}_width": 100 * one[name]["exposure"] / canaries["most"] for name in ("adapter", "base")},
            }
            for one in canaries["each"]
        ]
        canaries = {**canaries, "each": each}
    return {"verbatim": rows, "canaries": canaries}


def _about(audit: dict[str, Any]) -> str:
    base = f"Tokens counted by {audit['base']}." if audit["base"] else "Without a base: nothing was counted in tokens."
    adapter = f" Adapter {audit['adapter'][:12]}." if audit["adapter"] else ""
    return f"{base}{adapter} Took {audit['seconds']:.1f} s."


def _count(value: float) -> str:
    return f"{value:,}"


def _percent(value: float) -> str:
    shown = f"{100 * value:.1f}%"
    return "<0.1%" if value > 0 and shown == "0.0%" else shown


def _bits(value: float) -> str:
    return f"{value:.1f}"
