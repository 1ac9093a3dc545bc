"""Formulas of a page as MathML: no script and no font is loaded."""

import html
import re

from latex2mathml.converter import convert

# What pymdownx.arithmatex makes of $...$ and $$...$$.
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def rendered(page: str) -> str:
    """The HTML of a page with MathML in the place of TeX.

    Raises:
      ValueError: a formula is not understood.
    """
    return _FORMULA.sub(_mathml, page)


def _mathml(found: re.Match[str]) -> str:
    tag, bracket, text = found.groups()
    try:
        made = convert(html.unescape(text).strip(), display="block" if bracket == "[" else "inline")
    except Exception as error:
        raise ValueError(f"the formula {text!r} is not understood: {error!r}") from error
    if "\\" in made:
        raise ValueError(f"the formula {text!r} is not understood: a command of it is unknown")
    return f'<{tag} class="formula">{made}</{tag}>'
