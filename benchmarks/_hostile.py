"""Documents that anybody might send as a plan: nearly right, wrong in every way, and malicious."""

import json
import random
from typing import Any

WORDS: list[Any] = [
    "", "$", "$$", "$a", "$a.b", "$a[0]", "$item", "$item.x", "$a.__class__.__mro__", '$a["__dict__"]', "$a.b.c.d[99999999999]",
    "${a}", "$a; import os", "__import__('os')", "{{7*7}}", "a", "b", "echo", "boom", "geocode", "__class__", "\ud800", "\x00",
    "x" * 300, "$" + "a" * 600, "eq", "exists", "in", "lt", None, True, 0, -1, 10**30, 1.5, 1e308,
]  # fmt: skip
FIELDS = ("after", "map", "when", "optional", "id", "tool", "args", "extra")
KEYS = ("$text", "$$text", "x", "y", "ref", "op", "value", "id", "__class__")


def value(rng: random.Random, depth: int = 0) -> Any:
    """Make an argument."""
    kind = rng.randrange(10)
    if kind < 6 or depth > 4:
        return rng.choice(WORDS)
    if kind < 8:
        return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {rng.choice(KEYS): value(rng, depth + 1) for _ in range(rng.randrange(4))}


def document(rng: random.Random) -> Any:
    """Make a document, as text or as what JSON says."""
    steps: list[Any] = []
    for _ in range(rng.randrange(8)):
        told: dict[str, Any] = {
            "id": rng.choice("abcdef"),
            "tool": rng.choice(["echo", "echo", "echo", "secret", "boom"]),
        }
        told["args"] = {rng.choice(["x", "y", "y", "__globals__"]): value(rng) for _ in range(rng.randrange(3))}
        told |= {field: value(rng) for field in FIELDS if rng.random() < 0.12}
        if rng.random() < 0.2:
            told["when"] = {"ref": "$a.x", "op": rng.choice(["eq", "lt", "in", "exists"]), "value": value(rng)}
        steps.append(told if rng.random() < 0.97 else value(rng))
    whole = {"steps": steps}
    if rng.random() >= 0.3:
        return whole
    characters = list(json.dumps(whole))
    for _ in range(rng.randrange(4)):
        characters[rng.randrange(len(characters))] = rng.choice('{}[]",:$\\0a')
    return "".join(characters)


def large(rng: random.Random) -> Any:
    """Make a document that is as large as it may be: what is slow shows there."""
    kinds = [
        {"steps": [{"id": f"s{n}", "tool": "nosuch" * 9, "args": {"x": f"$z{n}"}} for n in range(1_000)]},
        {"steps": [{"id": f"s{n}", "tool": "echo", "args": {"x": [f"$q{k}" for k in range(200)]}} for n in range(100)]},
        {"steps": [{"id": f"s{n}", "tool": "echo", "args": {"x": f"$s{(n + 1) % 500}"}} for n in range(500)]},
        {"steps": [{"id": "a", "tool": "echo", "args": {"x": "$a" + ".b" * 200}}] * 500},
        {"steps": [{"id": f"s{n}", "tool": "echo", "args": {"x": n}} for n in range(1_000)]},
        {"steps": [{"id": f"s{n}", "tool": "echo", "after": [f"s{k}" for k in range(n)]} for n in range(1_000)]},
        "[" * 100_000,
        '{"steps": [' * 1_000,
        " " * 2_000_000,
        '{"steps": [{"id": "a", "tool": "echo", "args": {"x": ' + "9" * 100_000 + "}}]}",
    ]
    return rng.choice(kinds)
