"""Formulas as MathML, which browsers draw by themselves: the pages load nothing from elsewhere."""

import html
import re
from typing import Any

from latex2mathml.converter import convert

_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_content(content: str, **_: Any) -> str:
    """Called by mkdocs with the HTML of each page."""
    return _FORMULA.sub(_to_mathml, content)


def _to_mathml(match: re.Match[str]) -> str:
    _, opening, formula = match.groups()
    # The converter knows `aligned` by its older name alone.
    formula = html.unescape(formula).strip().replace("{aligned}", "{split}")
    return convert(formula, display="block" if opening == "[" else "inline")
