r"""The parameters as a LaTeX table with the rules of booktabs."""

import dataclasses
import math
import re

from dso_robotics.report.export.finished import Finished
from dso_robotics.report.export.format import FORMATS, Export, Format
from dso_robotics.report.export.numbers import Number, read_numbers
from dso_robotics.table import key

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "'": r"\textquotesingle{}",
    "`": r"\textasciigrave{}",
    "-": r"{-}",  # two in a row would become a dash
}
_OPEN, _HELD = r"\dagger", r"\ddagger"


@FORMATS.register("latex")
@dataclasses.dataclass(frozen=True)
class Latex(Format):
    r"""A fragment for \input: value, 95% interval, unit and start value of each number, with marks and their meaning."""

    commands = ("identify", "train", "design", "estimate")
    filename = "parameters.tex"
    about = "the parameters with intervals as a LaTeX table (booktabs)"

    environment: str = key(
        "tabular, or longtable for a table over several pages", "tabular", choices=("tabular", "longtable")
    )

    def export(self, result: Finished, name: str) -> Export:
        """See `Format.export`."""
        numbers = read_numbers(result)
        heading = r"parameter & value & 95\,\% interval & unit & start \\"
        marks = []
        if any(n.determined is False for n in numbers):
            marks.append(rf"$^{_OPEN}$ not determined by the data")
        if any(n.at_bound for n in numbers):
            marks.append(rf"$^{_HELD}$ at its bound")
        packages = ["booktabs", "textcomp", *(["longtable"] if self.environment == "longtable" else [])]
        lines = [
            f"% numbers of `dso {result.command}`; needs \\usepackage{{{','.join(packages)}}} and \\usepackage[T1]{{fontenc}}",
            rf"\begin{{{self.environment}}}{{lrlll}}",
            r"\toprule",
            heading,
            r"\midrule",
            *([r"\endhead"] if self.environment == "longtable" else []),
            *map(_row, numbers),
            r"\bottomrule",
            *([rf"\multicolumn{{5}}{{l}}{{\footnotesize {'; '.join(marks)}}} \\"] if marks else []),
            rf"\end{{{self.environment}}}",
        ]
        foreign = ", ".join(sorted({c for n in numbers for c in n.path + n.unit if ord(c) > 127}))
        notes = [f"The names have {foreign}, which XeLaTeX and LuaLaTeX set and pdfLaTeX may not."] if foreign else []
        return Export({name: "\n".join(lines) + "\n"}, notes)


def escaped(text: str) -> str:
    """`text` as LaTeX prints it."""
    return "".join(_SPECIAL.get(c, c) for c in text)


def unit(text: str) -> str:
    r"""A unit such as N*m*s/rad in mathematics: $\mathrm{N\,m\,s\,rad^{-1}}$; empty for a pure number.

    What is no product of powers is printed as it is.
    """
    if text in ("", "1"):
        return ""
    factors = re.fullmatch(r"([^\W\d_]+(?:\^-?\d+)?)([*/][^\W\d_]+(?:\^-?\d+)?)*", text)
    if factors is None:
        return escaped(text)
    printed = []
    for sign, name, power in re.findall(r"([*/]?)([^\W\d_]+)(?:\^(-?\d+))?", text):
        exponent = int(power or 1) * (-1 if sign == "/" else 1)
        printed.append(name if exponent == 1 else f"{name}^{{{exponent}}}")
    product = r"\,".join(printed)
    return rf"$\mathrm{{{product}}}$"


def number(value: float | None, digits: int) -> str:
    """A number in mathematics, without the dollars: digits that count, a power of ten where it is shorter."""
    if value is None or math.isnan(value):
        return r"\mbox{--}"
    if math.isinf(value):
        return r"\infty" if value > 0 else r"-\infty"
    mantissa, _, exponent = f"{value:#.{digits}g}".rstrip(".").partition("e")
    return rf"{mantissa.rstrip('.')} \times 10^{{{int(exponent)}}}" if exponent else mantissa


def _row(n: Number) -> str:
    name = escaped(n.path).replace("/", r"/\allowbreak{}")
    mark = (_OPEN if n.determined is False else "") + (_HELD if n.at_bound else "")
    marked = f"${number(n.value, n.digits)}{{}}^{{{mark}}}$" if mark else f"${number(n.value, n.digits)}$"
    known = n.low is not None or n.high is not None
    ends = rf"{number(n.low, n.digits)},\ {number(n.high, n.digits)}"
    interval = f"$[{ends}]$" if known else "--"
    start = "--" if n.start is None else f"${number(n.start, 4)}$"
    return rf"\texttt{{{name}}} & {marked} & {interval} & {unit(n.unit)} & {start} \\"
