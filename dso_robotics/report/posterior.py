"""The posterior of an identification as rows and sentences, for the table, the HTML report and Python."""

from collections.abc import Mapping
from typing import Any

ROUTES = {
    "laplace": "by importance sampling, start states and noise scales integrated out",
    "nuts": "by Hamiltonian Monte Carlo (NUTS) over numbers, start states and noise scales",
}
Rows = list[tuple[str, ...]]


def parameter_rows(posterior: Mapping[str, Any]) -> Rows:
    """Rows after a heading: number, median, 95% interval, unit, and its width over that of the table."""
    rows: Rows = [("parameter", "median", "95% interval", "unit", "width over the table's")]
    for label, row in posterior.get("parameters", {}).items():
        ratio = row["over_jackknife"]
        interval = f"{row['low95']:.4g} .. {row['high95']:.4g}"
        rows.append((label, f"{row['median']:.4g}", interval, row["unit"], "-" if ratio is None else f"{ratio:.2f}"))
    return rows


def band_rows(posterior: Mapping[str, Any]) -> Rows:
    """Rows after a heading: channel, half-width, unit, where its variance comes from, and coverage; [] without bands."""
    rows: Rows = [("channel", "+-", "unit", "numbers", "start", "noise", "samples inside")]
    for part, word in (("hold_out", "held-out runs"), ("train", "fitted runs")):
        for name, row in posterior.get("bands", {}).get(part, {}).items():
            shares = (f"{row[f'{of}_percent']:.0f}%" for of in ("numbers", "start", "noise"))
            inside = f"{row['covered_percent']:.0f}% of {word}"
            rows.append((name, f"{row['half_width']:.4g}", row["unit"], *shares, inside))
    return rows if len(rows) > 1 else []


def how(posterior: Mapping[str, Any]) -> str:
    """How the draws were made, and whether they can be used, in one or two sentences."""
    if not posterior.get("parameters"):
        return f"posterior: none. {posterior['told']}"
    state = "" if posterior["reliable"] else "NOT to be relied on. "
    return f"posterior, {posterior['draws']} draws {ROUTES[posterior['route']]}. {state}{posterior['told']}"
