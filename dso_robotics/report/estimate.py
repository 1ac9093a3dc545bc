"""The report of an estimator: one HTML file that opens offline, drawn from run.h5 alone."""

import html
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dso_robotics.data.atomic import atomic_file
from dso_robotics.data.run_file import read_run
from dso_robotics.errors import DsoError
from dso_robotics.report import canvas
from dso_robotics.report.quantity import number
from dso_robotics.report.table import noise_lines, trust_lines
from dso_robotics.report.trace import PART_NAMES
from dso_robotics.studies.folder import MARK

_FIGURES = "figures"
_MOST_RUNS, _MOST_CHANNELS = 6, 8
_STYLE = """:root { color-scheme: light dark; } body { margin: 0 auto; padding: 2rem 1.25rem; max-width: 1100px;
font: 15px/1.5 system-ui, "Segoe UI", Roboto, sans-serif; } table { border-collapse: collapse; margin: .5rem 0 1rem; }
th, td { padding: .22rem .9rem .22rem 0; text-align: right; border-bottom: 1px solid #8888; } th:first-child, td:first-child
{ text-align: left; } img { max-width: 100%; height: auto; background: white; } pre { white-space: pre-wrap; }"""


def write_report(folder: Path) -> Path:
    """Draw the run in `folder`/run.h5 as `folder`/report.html, each figure also in `folder`/figures; return its path.

    Raises:
      DsoError: run.h5 is missing, damaged or of a run that has not finished; or the folder is not writable.
    """
    folder = Path(folder)
    tree, study, _ = read_run(folder / "run.h5")
    if tree.get("status") != "finished" or "summary" not in tree:
        raise DsoError(f"{folder / 'run.h5'}: this run has not finished, so there is nothing to report; run it again.")
    summary = json.loads(tree["summary"])
    figures = folder / _FIGURES
    try:
        figures.mkdir(exist_ok=True)
        for old in (p for pattern in ("innovations-*.png", "convergence.png") for p in figures.glob(pattern)):
            old.unlink()
    except OSError as error:
        raise DsoError(
            f"{figures}: cannot write figures there ({error.strerror}); remove the file or folder of that name."
        ) from error
    pictures = [_convergence(tree["history"])]
    for part in sorted(tree["traces"]):
        for i, (name, trace) in enumerate(list(tree["traces"][part].items())[:_MOST_RUNS]):
            pictures.append(_innovations(f"{part}-{i}", f"{PART_NAMES[part]}, {name}", trace, summary))
    for picture in pictures:
        picture.write(figures)
    path = folder / "report.html"
    with atomic_file(path) as temporary:
        temporary.write_text(_page(study, summary, pictures), "utf-8")
    return path


def _convergence(history: Mapping[str, np.ndarray]) -> canvas.Picture:
    figure, axes = canvas.rows(2.2, 1)
    cost = np.asarray(history["cost"], float)
    axes[0, 0].plot(cost - cost.min() + 1e-3, color=canvas.BLUE)
    axes[0, 0].set_yscale("log")
    canvas.label(axes[0, 0], x="iteration", y="cost above its minimum")
    return canvas.picture(figure, "convergence.png", "Negative log-likelihood above its minimum, by iteration")


def _innovations(tag: str, title: str, trace: Mapping[str, Any], summary: Mapping[str, Any]) -> canvas.Picture:
    names = list(summary["noise"])[:_MOST_CHANNELS]
    figure, axes = canvas.rows(1.5, len(names))
    time = np.asarray(trace["time"])
    for c, name in enumerate(names):
        axis, noise = axes[c, 0], summary["noise"][name]
        error = np.asarray(trace["measured"])[:, c] - np.asarray(trace["predicted"])[:, c]
        axis.plot(*canvas.thin(time, error), color=canvas.BLUE, linewidth=0.7)
        band = 1.96 * np.asarray(trace["std"])[:, c]
        for side in (-band, band):
            axis.plot(*canvas.thin(time, side), color=canvas.VERMILLION, linewidth=0.8)
        # At the start the band of a Kalman filter is as wide as its prior, and would hide the rest.
        usual = np.percentile(band[np.isfinite(band)], 95) if np.isfinite(band).any() else 0.0
        most = 1.15 * max(float(np.abs(error[np.isfinite(error)]).max(initial=0.0)), float(usual))
        if most > 0:
            axis.set_ylim(-most, most)
        canvas.title(axis, f"{name} [{noise['unit']}]" if c else f"{title}: {name} [{noise['unit']}]")
    canvas.label(axes[-1, 0], x="time [s]")
    text = f"{title}: innovations of {', '.join(names)}, with the band that should contain 95% of them"
    return canvas.picture(figure, f"innovations-{tag}.png", text)


def _page(study: Mapping[str, Any], s: Mapping[str, Any], pictures: list[canvas.Picture]) -> str:
    def row(cells: list[str], tag: str = "td") -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(c)}</{tag}>" for c in cells) + "</tr>"

    fits = [row(["channel", "runs", "rms, one step ahead", "unit", "within 1.96 predicted sd"], "th")]
    for part, channels in sorted(s["fit"].items()):
        for name, e in channels.items():
            covered = "" if e["covered_percent"] is None else f"{e['covered_percent']:.1f}%"
            rmse = "" if e["rmse"] is None else number(e["rmse"])
            fits.append(row([name, PART_NAMES[part], rmse, e["unit"], covered]))
    free = [row(["parameter", "start", "value", "unit"], "th")]
    free += [row([p, number(e["initial"]), number(e["value"]), e["unit"]]) for p, e in s["parameters"].items()]
    warnings = "".join(f"<li>{html.escape(text)}</li>" for text in s["warnings"]) or "<li>None.</li>"
    images = "".join(
        f'<p>{html.escape(p.text)}</p><img src="{p.source}" width="{p.size[0]}" height="{p.size[1]}" '
        f'alt="{html.escape(p.text)}">'
        for p in pictures
    )
    noises = "".join(f"<li>{html.escape(line)}</li>" for line in noise_lines(s))
    noises = f"<h2>Noises</h2><ul>{noises}</ul>" if noises else ""
    trust = "".join(f"<li>{html.escape(' '.join(line.split()))}</li>" for line in trust_lines(s))
    c = s["corrector"]
    lines = "\n".join(f"{key} = {value}" for key, value in study.items() if value not in (None, [], "estimate"))
    return (
        f"<!doctype html><!-- {MARK} -->"
        f'<html lang="en"><head><meta charset="utf-8"><title>Estimator</title><style>{_STYLE}</style></head>'
        f"<body><h1>State estimator: {html.escape(c['kind'])} corrector, {c['numbers']} numbers</h1>"
        f"<p>{'Converged' if s['converged'] else 'Not converged'}: {html.escape(s['message'])}. Updates every "
        f"{s['interval']:.6g} s; {s['engine']}, {html.escape(s['engine_reason'])}.</p>"
        f"<h2>Warnings</h2><ul>{warnings}</ul><h2>Stability and consistency</h2><ul>{trust}</ul>"
        f"<h2>Prediction of each measurement from the earlier ones</h2>"
        f"<table>{''.join(fits)}</table>{noises}<h2>Physics and sensors</h2><table>{''.join(free)}</table>"
        f"<h2>Innovations</h2>{images}<h2>Study</h2><pre>{html.escape(lines)}</pre></body></html>\n"
    )
