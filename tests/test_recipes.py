"""docs/recipes.md has every recipe, each with a loop that runs and a case in which the copied version is wrong."""

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parent.parent / "docs" / "recipes.md").read_text()
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", PAGE, flags=re.MULTILINE | re.DOTALL))
RECIPES = [
    "TTL cache with statistics",
    "In-flight dedup",
    "Pre-execution dedup",
    "Conversation memo with savings",
    "Fan-out",
    "Typed partial results",
    "Selective retry",
    "Timeouts for each tool, and a summary",
    "Circuit breaker",
    "Dependency order",
    "Graceful degradation",
]


def test_every_recipe_is_there():
    assert list(SECTIONS) == RECIPES


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_shows_that_it_works_and_that_what_is_copied_does_not(name):
    ours, copied = re.findall(r"```python\n(.*?)```", SECTIONS[name], flags=re.DOTALL)
    assert "assert" in ours and ("ask(" in ours or "guard.arun" in ours)
    assert re.search(r"assert .*# wrong: ", copied)
