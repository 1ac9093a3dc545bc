"""The table at the end of a run, as plain text."""

from collections.abc import Mapping, Sequence
from typing import Any


def identification_table(summary: Mapping[str, Any]) -> str:
    """Parameters with intervals, prediction errors per channel, and warnings, from an identification's summary."""
    rows = [("parameter", "start", "value", "95% interval", "unit", "")]
    for path, p in summary["parameters"].items():
        interval = f"{_number(p['low95'])} .. {_number(p['high95'])}"
        held = "at bound" if p["at_bound"] else "" if p.get("determined", True) else "not determined"
        rows.append((path, _number(p["initial"]), _number(p["value"]), interval, p["unit"], held))
    blocks = [columns(rows, "<>>^<<")]
    fit = summary["fit"]
    rows = [("channel", "noise", "fitted runs", "held-out runs", "", "unit")]
    for name, noise in summary["noise"].items():
        train, held = fit["train"].get(name, {}), fit["hold_out"].get(name, {})
        percent = f"{held['nrmse_percent']:.0f}% of spread" if held else ""
        errors = _number(train.get("rmse")), _number(held.get("rmse"))
        rows.append((name, _number(noise["value"]), *errors, percent, noise["unit"]))
    seconds = summary["windows"]["score_seconds"]
    start = "estimated" if "estimated" in summary["windows"]["start"].values() else "measured"
    how = f"open loop over {seconds:g} s from the {start} state (mean of window RMSE)"
    blocks.append(f"prediction error, {how if seconds else 'sample by sample at the recorded states (mean)'}")
    blocks.append(columns(rows, "<>>><<"))
    state = "converged" if summary["converged"] else "NOT converged"
    blocks.append(
        f"{state}: {summary['message']}; {summary['seconds']['total']:.1f} s, {summary['simulated_steps']:,} simulated steps, "
        f"engine {summary['engine']}"
    )
    blocks += [f"note: {text}" for text in summary["warnings"]]
    return "\n\n".join(blocks[:1]) + "\n\n" + "\n".join(blocks[1:3]) + "\n\n" + "\n".join(blocks[3:])


def columns(rows: Sequence[Sequence[str]], align: str) -> str:
    """Rows as aligned columns; `align` has one of < > ^ for each column."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(align))]
    lines = (
        "  ".join(f"{cell:{a}{w}}" for cell, a, w in zip(row, align, widths, strict=True)).rstrip() for row in rows
    )
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
