"""Text of numbers with units: four digits, symbols for products and powers."""

import math
import re

MISSING = "–"
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float | None, digits: int = 4, *, zeros: bool = False) -> str:
    """`value` with `digits` significant digits; a dash for None and NaN; ∞ with its sign for an infinity.

    `zeros` keeps zeros at the end, which show the precision of an estimate.
    """
    if value is None or math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    return f"{value:#.{digits}g}".rstrip(".") if zeros and value else f"{value:.{digits}g}"


def unit(text: str) -> str:
    """The printed form of a unit in a log or a summary, such as N*m*s/rad or kg*m^2; empty for a pure number."""
    if text in ("", "1"):
        return ""
    return re.sub(r"\^(-?\d+)", lambda power: power[1].translate(_SUPERSCRIPTS), text).replace("*", "·")


def quantity(value: float | None, text: str, digits: int = 4) -> str:
    """A number and its unit; only a dash if there is no number."""
    shown = number(value, digits, zeros=True)
    return shown if shown == MISSING else f"{shown} {unit(text)}".rstrip()


def interval(low: float | None, high: float | None, digits: int = 3) -> str:
    """Both ends of an interval, joined by "to" because a dash looks like a minus sign; a dash if neither is known."""
    ends = [number(end, digits, zeros=True) for end in (low, high)]
    return MISSING if ends == [MISSING, MISSING] else " to ".join(ends)


def percent(value: float | None) -> str:
    """A percentage with two digits; a dash if it is undefined, as for a channel that never changes."""
    if value is None or not math.isfinite(value) or abs(value) > 1e6:
        return MISSING
    value = float(f"{value:.2g}")
    digits = 1 - math.floor(math.log10(abs(value))) if value else 0
    return f"{value:.{min(max(digits, 0), 3)}f}%"


def listed(items: list[str], most: int = 5) -> str:
    """Items in a sentence: "a, b and c", or the first few and the number of the others: "and 7 more"."""
    if len(items) > most:
        items = [*items[: most - 1], f"{len(items) - most + 1} more"]
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""


def counted(count: int, noun: str) -> str:
    """A number and its noun: "1 run", "4 runs"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
