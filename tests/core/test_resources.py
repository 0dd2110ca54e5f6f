"""Resources: the table of overlaps, templates, and that no argument is a wildcard (R8)."""

import enum
import itertools
import re
import uuid
from datetime import date, datetime
from decimal import Decimal

import pytest

from ibidem.core import resources as module
from ibidem.core.resources import (
    EVERYTHING,
    Resource,
    ResourceError,
    Template,
    overlap,
    parse_answer,
    read_cells,
    texts,
    write_cells,
)
from ibidem.testing import OVERLAPS, READ, resources


def fill(text, **arguments):
    return [str(each) for each in Template.parse(text).fill(arguments)]


def test_the_table_in_the_docs_is_kept():
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in module.__doc__.splitlines() if line[:1] == "|"
    ]
    header = [re.sub(r"[`\\\s]", "", cell) for cell in rows[0][1:]]
    assert len(header) == 6 and len(rows) == 7
    for row in rows[2:]:
        written = row[0].strip("`")
        for read, said in zip(header, row[1:], strict=True):
            assert overlap(resources(written), resources(read)) is (said == "yes"), f"{written} written, {read} read"
            assert (read in OVERLAPS[written]) is (said == "yes")


def meant(written, read):
    """Whether two resources overlap, by what they mean: the oracle."""

    def covers(resource, path):
        return resource.path == path or (resource.below and path[: len(resource.path)] == resource.path)

    return covers(written, read.path) or covers(read, written.path)


def test_cells_overlap_exactly_where_the_meanings_do():
    paths = [path for n in range(4) for path in itertools.product("ab", repeat=n)]
    every = [Resource(path, below) for path in paths for below in (False, True) if path or below]
    for written, read in itertools.product(every, repeat=2):
        assert overlap([written], [read]) is meant(written, read), (written, read)


def test_r8_no_argument_is_a_wildcard_or_a_separator():
    hostile = [
        "*",
        ":",
        "a:*",
        "order:*",
        "\\",
        "\\*",
        "",
        " ",
        "{x}",
        "é",
        "e\u0301",
        "É",
        "\0",
        "x" * 10_000,
        "**",
        ".",
        "..",
    ]
    named = {value: Template.parse("order:{id}").fill({"id": value}) for value in hostile}
    for value, (resource,) in named.items():
        assert resource == Resource(("order", value))
        assert overlap([resource], Template.parse("order:*").fill({}))
        for other, (another,) in named.items():
            assert overlap([resource], [another]) is (value == other), (value, other)
        assert not overlap([resource], Template.parse("user:{id}").fill({"id": value}))


def test_r8_the_text_of_a_resource_is_unambiguous():
    parts = ["a", "*", ":", "\\", "a:b", "\\:", "*:", ""]
    every = [Resource((x, y), below) for x in parts for y in parts for below in (False, True)]
    assert len({str(each) for each in every}) == len(every)


def test_templates_fill_in_arguments():
    assert fill("order:{id}", id=42) == fill("order:{id}", id="42") == fill("order:{id}", id=42.0) == ["order:42"]
    assert fill("user:{u}:order:{o}", u="ann", o=1) == ["user:ann:order:1"]
    assert fill("order-{id}-x:{n}", id=1, n=2) == ["order-1-x:2"]
    assert fill("{{x}}:{n}", n=1) == ["{x}:1"]
    assert fill("order:{id}", id=[1, 2, "3"]) == ["order:1", "order:2", "order:3"]
    assert fill("{a}:{b}", a=[1, 2], b=(3, 4)) == ["1:3", "1:4", "2:3", "2:4"]
    assert fill("order:{id}:*", id=1) == ["order:1:*"]
    assert fill("*") == ["*"] and Template.parse("*").fill({}) == [EVERYTHING]


@pytest.mark.parametrize("arguments", [{}, {"id": None}, {"id": []}, {"id": object()}, {"id": {}}, {"id": [1, None]}])
def test_what_has_no_text_widens(arguments):
    assert [str(each) for each in Template.parse("order:{id}:items").fill(arguments)] == ["order:*"]
    assert Template.parse("{id}").fill(arguments) == [EVERYTHING]


class Colour(enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "True"), (1.5, "1.5"), (-0.0, "0"), (1e300, str(int(1e300))), (float("nan"), "nan"), (float("inf"), "inf"),
        (Decimal("42.00"), "42"), (Decimal("1.5"), "1.5"), (uuid.UUID(int=1), str(uuid.UUID(int=1))), (Colour.RED, "red"),
        (date(2024, 1, 2), "2024-01-02"), (datetime(2024, 1, 2, 3), "2024-01-02T03:00:00"),
    ],
)  # fmt: skip
def test_values_with_an_obvious_text(value, text):
    assert texts(value) == [text]


def cycle():
    found = []
    found.append(found)
    return found


@pytest.mark.parametrize(
    "value",
    [10**5000, Decimal("1E+9999"), Decimal("1E+999999999"), cycle(), [10**5000]],
    ids=["int", "Decimal", "vast", "cycle", "in a list"],
)
def test_hostile_values_widen_instead_of_failing_the_call(value):
    assert Template.parse("order:{id}").fill({"id": value})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "such as 'order:{order_id}'"), (5, "not 5"), (None, "not None"), ("a::b", "empty segment"), (":", "empty segment"),
        ("a:", "empty segment"), ("*:a", "only as the last segment"), ("a*", "only as the last segment"),
        ("a:{x}*", "only as the last segment"), ("a:{x", "fields are written"), ("a:{x.y}", "give a callable"),
        ("a:{x[0]}", "give a callable"), ("a:{}", "give a callable"), ("a:{0}", "give a callable"), ("a:{x!r}", "give a callable"),
        ("a:{x:>5}", "give a callable"),
    ],
)  # fmt: skip
def test_a_template_that_cannot_be_read_says_what_to_write(text, says):
    with pytest.raises(ResourceError) as error:
        Template.parse(text)
    assert says in str(error.value)


def test_answers_of_callables():
    assert parse_answer([("order", "*"), "user:*", "*"]) == (
        Resource(("order", "*")),
        Resource(("user",), True),
        EVERYTHING,
    )
    assert parse_answer(iter(["a"])) == (Resource(("a",)),)
    assert parse_answer([]) == ()
    for wrong in ("a", b"a", None, 5, [5], [()], [("a", 1)], [None], ["{x}"], ["a::b"], [["a"]], [Resource(("a",))]):
        with pytest.raises(ResourceError):
            parse_answer(wrong)


def test_cells_are_named_once():
    twice = resources("a:1", "a:2", "a:1", "a:*")
    for cells in (read_cells(twice), write_cells(twice)):
        assert len(set(cells)) == len(cells)
    assert set(READ) >= set(OVERLAPS)
