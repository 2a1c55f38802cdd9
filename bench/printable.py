"""Text that others wrote (a label, a note, a message), made safe to show: no character in it steers a terminal.

    clean("\\x1b[2Jgone\\x07")                # "�[2Jgone�"; keeps line breaks and tabs
    one_line("two\\nlines")                  # "two lines"
    table.add_row(cell(record.label))       # a cell of a rich table: no markup, one line
"""

from __future__ import annotations

import unicodedata

from rich.text import Text

SHOWN = "\N{REPLACEMENT CHARACTER}"
STEERING = {code: SHOWN for code in range(0x100) if unicodedata.category(chr(code)) == "Cc"} | dict.fromkeys(
    [0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A), *range(0xD800, 0xE000), 0xFFFE, 0xFFFF],
    SHOWN)
"""Control characters, those that turn the direction of writing, and what no UTF-8 file can hold."""
LINES = STEERING | dict.fromkeys([0x0D, 0x2028, 0x2029], "\n") | {0x09: "\t", 0x0A: "\n"}
LINE = STEERING | dict.fromkeys([0x09, 0x0A, 0x0D, 0x2028, 0x2029], " ")


def clean(text: str) -> str:
    """The text with its line breaks and tabs, every other control character replaced by a visible mark."""
    return text.replace("\r\n", "\n").translate(LINES)


def one_line(text: str) -> str:
    """`clean`, and a space for every line break or tab."""
    return text.replace("\r\n", "\n").translate(LINE)


def last_line(message: str) -> str:
    """The last line of a message that says something: of a traceback, the error itself."""
    return next((one_line(line) for line in reversed(clean(message).splitlines()) if line.strip()), "")


def cell(text: object, style: str = "") -> Text:
    """For a rich table or console: square brackets are text and no markup."""
    return Text(one_line(str(text)), style=style)
