"""The table at the end of a run, as plain text."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dso_robotics.studies.check import Overview


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


def training_table(summary: Mapping[str, Any]) -> list[str]:
    """Lines on what a training or a design came to."""
    cost, seconds = summary["cost"], summary["seconds"]
    lines = [
        summary["message"],
        f"steps of the environment: {summary['environment_steps']:,}; {seconds['total']:.1f} s, "
        f"{seconds['compile']:.1f} s of them compiling",
        f"at a quarter of the time step: {cost['quarter_timestep']:.4g}",
        "cost by term: " + ", ".join(f"{name} {value:.4g}" for name, value in cost["terms"].items()),
    ]
    for name, row in summary["parameters"].items():
        bound = "  at bound" if row["at_bound"] else ""
        lines.append(f"{name}: {row['initial']:.4g} -> {row['value']:.4g} {row['unit']}{bound}")
    return lines + [f"warning: {text}" for text in summary["warnings"]]


def estimation_table(summary: Mapping[str, Any]) -> list[str]:
    """Lines on how well an estimator predicts each measurement, and warnings."""
    lines = [
        f"{part:9} {name:24} one step ahead: rms {entry['rmse']:.4g} {entry['unit']}, "
        f"{entry['covered_percent']:.1f}% within 1.96 predicted standard deviations"
        for part, fit in summary["fit"].items()
        for name, entry in fit.items()
    ]
    return lines + [f"warning: {text}" for text in summary["warnings"]]


def overview_lines(model: str, seen: "Overview") -> list[str]:
    """What a model has and which engine supports it."""
    lines = [f"{model}", "", columns([*seen.contents, *seen.options], "<<"), ""]
    for engine, word in (("mujoco", "C engine (--engine mujoco)"), ("mjx", "differentiable engine (--engine mjx)")):
        reasons = seen.engines[engine]
        lines.append(f"{word}: {'not supported' if reasons else 'supported'}")
        lines += [f"  - {reason}" for reason in reasons]
    lines += ["", *(f"warning: {text}" for text in seen.warnings)] if seen.warnings else []
    return lines


def columns(rows: Sequence[Sequence[str]], align: str) -> str:
    """Rows as aligned columns; `align` has one of < > ^ for each column."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(align))]
    lines = (
        "  ".join(f"{cell:{a}{w}}" for cell, a, w in zip(row, align, widths, strict=True)).rstrip() for row in rows
    )
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
