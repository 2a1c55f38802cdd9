"""Texts made fit for file names and for one line."""

from __future__ import annotations

from collections.abc import Collection

from bench.provenance import content_id


def slugify(text: str) -> str:
    """For file names: letters, digits and hyphens, not longer than file systems allow."""
    slug = "-".join(filter(None, "".join(c if c.isalnum() else " " for c in text.lower()).split()))
    return slug if slug and len(slug.encode()) <= 100 else f"{slug[:20]}-{content_id(text)[:8]}".lstrip("-")


def first_line(message: str) -> str:
    """The line of a message that says most: the last of a traceback, the first of anything else."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    if not lines:
        return "no reason recorded"
    return lines[-1] if lines[0].startswith("Traceback") else lines[0]


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def untaken(name: str, taken: Collection[str]) -> str:
    """The name, or with the first number from 2 on that makes it another than those taken."""
    number = 1
    while (found := name if number == 1 else f"{name}-{number}") in taken:
        number += 1
    return found
