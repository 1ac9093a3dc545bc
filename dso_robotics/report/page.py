"""A page with charts: one HTML file that holds its numbers and scripts and asks nothing of a network.

Charts are drawn by uPlot (MIT, `assets/uPlot-LICENSE.txt`). A policy in the page allows two scripts alone, by their digests.
"""

import base64
import hashlib
import html
import json
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from dso_robotics.data.atomic import atomic_file
from dso_robotics.report import quantity as q
from dso_robotics.report.chart import Chart, thinned
from dso_robotics.report.still import still
from dso_robotics.studies.folder import MARK, REPORT

_SCRIPTS, _STYLES = ("uPlot.iife.min.js", "charts.js"), ("uPlot.min.css", "charts.css")
# Numbers of all charts of a page together.
_MOST_NUMBERS = 600_000
_LEAST_ROWS, _MOST_ROWS = 150, 4000


class Charts:
    """The charts of a page and their numbers.

    lines: about how many lines will be added, so that all of them together stay small.
    """

    def __init__(self, lines: int):
        self._rows = int(np.clip(_MOST_NUMBERS // max(lines, 1), _LEAST_ROWS, _MOST_ROWS))
        self._arrays: list[str] = []
        self._known: dict[bytes, int] = {}
        self._charts: list[dict[str, Any]] = []

    def add(self, chart: Chart, *, picture: bool = True) -> Markup:
        """The HTML of a chart, with `picture` also as a still one; its numbers are kept for `payload`."""
        x, columns = thinned(chart.x, np.column_stack([line.values for line in chart.lines]), self._rows)
        lines = [
            {"label": line.label, "colour": line.colour, "style": line.style, "y": self._stored(columns[:, i], "<f4")}
            for i, line in enumerate(chart.lines)
        ]
        entry = {"x": self._stored(x, "<f8"), "lines": lines, "scale": chart.scale, "unit": q.unit(chart.unit)}
        entry |= {"label": chart.x_label, "group": chart.group, "height": chart.height}
        if len(chart.marks):
            entry["marks"] = self._stored(chart.marks, "<f8")
        self._charts.append(entry)
        unit = f' <span class="soft">[{html.escape(q.unit(chart.unit) or "1")}]</span>' if chart.unit else ""
        remark = f'<span class="soft remark">{html.escape(chart.remark)}</span>' if chart.remark else ""
        return Markup(
            f'<figure class="chart" data-chart="{len(self._charts) - 1}" data-title="{html.escape(chart.title)}">'
            f"<figcaption><b>{html.escape(chart.title)}</b>{unit}{remark}</figcaption>"
            f'<div class="drawn" style="min-height:{chart.height + 30}px">{still(chart) if picture else ""}</div></figure>'
        )

    def payload(self) -> Markup:
        """The numbers of all charts, as a JSON text that is safe inside a script element."""
        text = json.dumps({"arrays": self._arrays, "charts": self._charts}, allow_nan=False)
        return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))

    def _stored(self, values: np.ndarray, kind: str) -> int:
        with np.errstate(over="ignore"):
            found = np.ascontiguousarray(values, kind)
        found = np.where(np.isfinite(found), found, np.nan).astype(kind)
        data = kind.encode() + found.tobytes()
        if data not in self._known:
            self._known[data] = len(self._arrays)
            self._arrays.append(kind[1:] + base64.b64encode(found.tobytes()).decode())
        return self._known[data]


def write_page(folder: Path, template: str, **values: Any) -> Path:
    """Write `folder`/report.html from a template in this package; returns its path. `page` is among the values.

    Raises:
      DsoError: the folder is not writable.
    """
    environment = Environment(
        loader=FunctionLoader(_source), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": q.number, "unit": q.unit, "percent": q.percent, "quantity": q.quantity}
    scripts, styles = ([_source(f"assets/{name}") for name in names] for names in (_SCRIPTS, _STYLES))
    digests = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts)
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {digests}"
    shown = {"scripts": [*map(Markup, scripts)], "styles": Markup("\n".join(styles)), "policy": policy, "mark": MARK}
    text = environment.get_template(template).render(counted=q.counted, **values, **shown)
    path = folder / REPORT
    with atomic_file(path) as temporary:
        temporary.write_text(text, "utf-8")
    return path


def _source(name: str) -> str:
    return (resources.files("dso_robotics.report") / name).read_text("utf-8")
