"""Words: counts, times and sizes as people say them, and texts of others made harmless to print."""

from __future__ import annotations

from typing import Any


def plain(text: str) -> str:
    """Spell out what a terminal or a page would obey instead of printing it: escape sequences, line breaks, overrides."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def representation(value: Any) -> str:
    """Give the `repr` of a value, which may be anybody's code."""
    try:
        return repr(value)
    except Exception as problem:
        return f"<{type(value).__name__}, whose repr raises {type(problem).__name__}>"


def cut(text: str, limit: int) -> str:
    """Shorten a text to so many characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def duration(seconds: float) -> str:
    """Write a time as people say it."""
    if seconds < 0.001:
        return "less than 1 ms"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def amount(size: float) -> str:
    """Write a number of bytes as people say it."""
    if size < 1024:
        return counted(int(size), "byte")
    for unit in ("KB", "MB"):
        size /= 1024
        if size < 1024:
            return f"{size:.1f} {unit}"
    return f"{size / 1024:.1f} GB"


def counted(count: int, noun: str) -> str:
    """Write a count and what is counted."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
