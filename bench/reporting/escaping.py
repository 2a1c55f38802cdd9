"""Text of records in the language of each file of a report, so that it is shown there and never obeyed.

    csv_cell("=1+1")            # "'=1+1": a spreadsheet shows it and computes nothing
    markdown_text("a|b")        # "a\\|b"
    tex_text("50%")             # "50\\%"

A terminal's is bench.printable.cell, a figure's the style of bench.reporting.figures, the page's its template.
"""

from __future__ import annotations

import re
from typing import Any

from bench.printable import one_line

FORMULA = tuple("=+-@")
"""What a spreadsheet takes for the beginning of a formula."""
TEX = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
       "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "–": "--", "∞": r"$_\infty$",
       "≤": r"$\le$", "λ": r"$\lambda$", "<": r"$<$", ">": r"$>$", "∆": r"$\Delta$", "×": r"$\times$", "−": r"$-$",
       "[": "{[}", "]": "{]}", "*": "{*}"}   # after a line's end the last three would be arguments of it
TEX_KNOWS = {chr(code) for code in range(256) if chr(code).isprintable()} - set("«»ÐÞðþ") | set("‘’“”—…")   # in OT1


def csv_cell(value: Any) -> Any:
    """Numbers as they are. A text that a spreadsheet would compute gets an apostrophe before it, which says "text"."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    text = one_line(str(value))
    return f"'{text}" if len(text) > 1 and text.lstrip().startswith(FORMULA) and not _is_number(text) else text


def markdown_text(text: str) -> str:
    """One line inside a table: no cell ends early, no HTML begins, and no link or picture is fetched."""
    text = re.sub(r"<(?=[A-Za-z/!?])", "&lt;", one_line(text).replace("|", "\\|"))
    return text.replace("](", "]\\(").replace("][", "]\\[")


def tex_text(text: str) -> str:
    """A character that LaTeX's default fonts lack is named by its code."""
    return "".join(TEX.get(c) or (c if c in TEX_KNOWS else rf"\texttt{{U+{ord(c):04X}}}") for c in one_line(text))


def tex_label(name: str) -> str:
    """For \\label and \\ref: letters, digits and hyphens."""
    return "".join(c if c.isascii() and (c.isalnum() or c == "-") else f"u{ord(c):x}" for c in name)


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", ""))
    except ValueError:
        return False
    return True


