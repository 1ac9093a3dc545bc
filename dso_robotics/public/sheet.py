"""Tables as text, and as HTML for a notebook, in the notebook's own colours."""

import html
from collections.abc import Sequence

from dso_robotics.report.table import columns

_STYLE = (
    "<style>.dso-result{font-size:.95em;line-height:1.4}.dso-result table{border-collapse:collapse;margin:.4em 0 .8em;"
    "font-size:inherit}"
    ".dso-result th,.dso-result td{padding:.18em .9em .18em 0;text-align:right;background:none;border:0;"
    "border-bottom:1px solid #8886;white-space:nowrap}.dso-result .l{text-align:left}"
    ".dso-result p{margin:.4em 0;max-width:60em}.dso-result ul{margin:.3em 0;padding-left:1.3em;max-width:60em}"
    ".dso-result .bad{color:#b3261e;font-weight:600}</style>"
)
Row = Sequence[str]


def text_table(rows: Sequence[Row], align: str) -> str:
    """Rows as aligned columns. The first row is the heading. `align` has one of < > ^ for each column."""
    return columns(rows, align)


def html_table(rows: Sequence[Row], align: str) -> str:
    """Like `text_table`, in HTML."""
    head, *body = rows

    def line(row: Row, tag: str) -> str:
        cells = zip(row, align, strict=True)
        return "".join(f"<{tag}{' class=l' if side == '<' else ''}>{html.escape(cell)}</{tag}>" for cell, side in cells)

    lines = "".join(f"<tr>{line(row, 'td')}</tr>" for row in body)
    return f"<table><thead><tr>{line(head, 'th')}</tr></thead><tbody>{lines}</tbody></table>"


def block(title: str, state: str, parts: Sequence[str], warnings: Sequence[str], *, good: bool = True) -> str:
    """A result in a notebook: title, final state, tables in HTML, and warnings."""
    notes = "".join(f"<li>{html.escape(text)}</li>" for text in warnings)
    shown = html.escape(state) if good else f"<span class=bad>{html.escape(state)}</span>"
    listed = f"<p><b>Warnings</b></p><ul>{notes}</ul>" if notes else ""
    return f'{_STYLE}<div class="dso-result"><p><b>{html.escape(title)}</b>: {shown}</p>{"".join(parts)}{listed}</div>'
