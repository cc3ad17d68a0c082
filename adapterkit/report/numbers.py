"""Numbers as people read them."""

from __future__ import annotations

import math
from datetime import UTC, datetime

__all__ = ["capital", "change", "count", "duration", "memory", "moment", "money", "number", "percent"]

MINUTE, HOUR = 60, 3600


def number(value: float | None, digits: int = 4) -> str:
    """So many significant digits; thousands apart; very small and very large ones with a power of ten."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else "infinite" if value > 0 else "−infinite"
    size = abs(value)
    if size and not 1e-4 <= size < 1e9:
        mantissa, _, power = f"{value:.{max(digits - 2, 0)}e}".partition("e")
        mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        return f"{mantissa}e{int(power)}".replace("-", "−")
    places = max(0, digits - 1 - math.floor(math.log10(size))) if size else 0
    return _signed(f"{value:,.{places}f}")


def percent(value: float | None, places: int = 1) -> str:
    """A fraction as a percentage."""
    if value is None or not math.isfinite(value):
        return number(value)
    return _signed(f"{100 * value:.{places}f}%")


def change(before: float, after: float) -> str:
    """How much larger ``after`` is, in percent, with its sign."""
    if not before or not math.isfinite(before) or not math.isfinite(after):
        return "–"
    grown = 100 * (after / before - 1)
    places = 1 if abs(grown) < 100 else 0
    said = f"{grown:+,.{places}f}"
    return _signed(("±0.0" if float(said.replace(",", "")) == 0 else said) + "%")


def count(value: float | None) -> str:
    """A whole number with its thousands apart."""
    return number(value) if value is None or not math.isfinite(value) else f"{round(value):,}"


def duration(seconds: float | None) -> str:
    """Seconds as hours, minutes and seconds: the two that matter."""
    if seconds is None or not math.isfinite(seconds):
        return number(seconds)
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < MINUTE:
        return f"{whole} s"
    if whole < HOUR:
        return f"{whole // MINUTE} min {whole % MINUTE} s"
    minutes = round(seconds / MINUTE)
    return f"{minutes // MINUTE:,} h {minutes % MINUTE} min"


def memory(size: float | None) -> str:
    """Bytes in the largest binary unit that fits."""
    if size is None:
        return number(size)
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def money(value: float | None) -> str:
    """A sum, in whatever currency the price was in."""
    return number(value) if value is None else number(value, 2) if 0 < value < 0.01 else f"{value:,.2f}"


def moment(text: str | None) -> str:
    """A moment in UTC, to the minute; what is none is left as it is."""
    if not text:
        return "–"
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return text
    if when.tzinfo is not None:
        when = when.astimezone(UTC)
    return f"{when:%Y-%m-%d %H:%M} UTC"


def capital(text: str) -> str:
    """A sentence with its first letter large."""
    return text[:1].upper() + text[1:]


def _signed(text: str) -> str:
    return text.replace("-", "−", 1) if text.startswith("-") else text
