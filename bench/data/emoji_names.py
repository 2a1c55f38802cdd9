"""What an emoji is called and which group it belongs to, from the code points that its file is named by.

    caption_of("1f469-1f3fd-200d-1f680.png")   # "woman, medium skin tone, rocket"
    group_of("1f1e9-1f1ea.png")                # "flags"

Names are Unicode's (unicodedata), those of a sequence its parts'; groups are Unicode's blocks, people and flags apart.
"""

from __future__ import annotations

import unicodedata
from pathlib import Path

JOINERS = {0x200D, 0xFE0F}   # zero-width joiner, emoji presentation
LETTERS = range(0x1F1E6, 0x1F200)   # regional indicators, two of which are a flag
TAGS = range(0xE0020, 0xE0080)   # ASCII of a region's code, behind a black flag
SKIN_TONES = {0x1F3FB: "light", 0x1F3FC: "medium-light", 0x1F3FD: "medium", 0x1F3FE: "medium-dark", 0x1F3FF: "dark"}
PEOPLE = {0x1F468, 0x1F469, 0x1F9D1}   # man, woman, person
FLAGS = {0x1F3F3, 0x1F3F4, 0x1F3C1, 0x1F6A9, 0x1F38C}   # white, black, chequered, on a post, crossed
BLOCKS = {
    "pictographs": range(0x1F300, 0x1F600), "emoticons": range(0x1F600, 0x1F650),
    "transport and maps": range(0x1F680, 0x1F700), "supplemental pictographs": range(0x1F900, 0x1FA00),
    "extended pictographs": range(0x1FA70, 0x1FB00),
}


def caption_of(name: str) -> str:
    """"" where Python's Unicode tables know no part of it."""
    points = _points(name)
    letters = "".join(chr(ord("A") + point - LETTERS.start) for point in points if point in LETTERS)
    if letters:
        return f"flag {letters}"
    tags = "".join(chr(point - 0xE0000) for point in points if point in TAGS)
    parts = [_part(point) for point in points if point not in TAGS]
    return ", ".join([part for part in parts if part] + ([tags.strip("\x7f").upper()] if tags else []))


def group_of(name: str) -> str:
    """The Unicode block of its first code point; "people", "flags", or "symbols" for all the others."""
    first = _points(name)[0]
    if first in PEOPLE:
        return "people"
    if first in LETTERS or first in FLAGS:
        return "flags"
    return next((block for block, points in BLOCKS.items() if first in points), "symbols")


def _points(name: str) -> list[int]:
    """Without joiners, which are kept only where there is nothing else."""
    points = [int(point, 16) for point in Path(name).stem.split("-")]
    return [point for point in points if point not in JOINERS] or points


def _part(point: int) -> str:
    if point in SKIN_TONES:
        return f"{SKIN_TONES[point]} skin tone"
    return unicodedata.name(chr(point), "").lower()
