"""Equality of results: exact where it can be told, and silent where it cannot."""

import dataclasses
import math
import uuid
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from pydantic import BaseModel

from ibidem.core.copies import private
from ibidem.core.equality import same


@dataclasses.dataclass
class Point:
    x: float
    drawn: float = dataclasses.field(default=0.0, compare=False)


class Order(BaseModel):
    order_id: str
    total: float = math.nan


class Plain:
    def __init__(self, name):
        self.name = name


class Hostile:
    def __eq__(self, other):
        raise OSError

    __hash__ = None


class Slots:
    __slots__ = ("name",)


def block(text):
    return [{"type": "text", "text": text, "id": f"lc_{uuid.uuid4()}"}]


EQUAL = [
    None, True, 1, 1.5, math.nan, "a", b"a", (1, 2), [math.nan, {"a": [math.nan]}], {"a": 1, "b": None}, {1, 2}, Decimal("NaN"),
    Decimal("1.0"), datetime(2026, 1, 1, tzinfo=UTC), Point(math.nan), Order(order_id="1"), [Order(order_id="1")], Plain([Plain(1)]),
]  # fmt: skip


@pytest.mark.parametrize("value", EQUAL, ids=repr)
def test_a_copy_is_the_same(value):
    assert same(value, private(value)) is True


@pytest.mark.parametrize("nth", range(len(EQUAL)))
def test_two_values_that_are_not_alike_differ(nth):
    others = [
        other for other in (*EQUAL[:nth], *EQUAL[nth + 1 :], 1.0, "1", [1], {"a": 1}, Order(order_id="2"), Plain(2))
    ]
    assert {same(EQUAL[nth], other) for other in others} == {False}


def test_fields_that_a_class_leaves_out_of_its_equality_do_not_count():
    assert same(Point(1.0, drawn=1.0), Point(1.0, drawn=2.0)) is True


def test_the_random_ids_of_content_blocks_do_not_count():
    assert same(block("a"), block("a")) is True
    assert same((block("a"), {"artifact": 1}), (block("a"), {"artifact": 1})) is True


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (block("a"), block("b")),
        ({"id": "order-1"}, {"id": "order-2"}),
        ({"key": f"lc_{uuid.uuid4()}"}, {"key": f"lc_{uuid.uuid4()}"}),
        ([f"lc_{uuid.uuid4()}"], [f"lc_{uuid.uuid4()}"]),
        ({"id": "lc_1"}, {"id": "lc_2"}),
    ],
)
def test_no_other_id_is_left_out(one, other):
    assert same(one, other) is False


def cyclic():
    found = []
    found.append(found)
    return found


def endless():
    found = [object()]
    for _ in range(60):
        found = [found, found]
    return found


@pytest.mark.parametrize("make", [object, Hostile, Slots, cyclic, endless, lambda: [1, object()], lambda: iter(())])
def test_what_has_no_equality_is_not_told(make):
    assert same(make(), make()) is None


def test_what_differs_differs_whatever_else_cannot_be_told():
    assert same([object(), 1], [object(), 2]) is False
    assert same({"a": object(), "b": 1}, {"a": object()}) is False


def test_an_array_without_a_truth_is_not_told():
    class Array:
        def __eq__(self, other):
            return self

        def __bool__(self):
            raise ValueError("ambiguous")

        __hash__ = None

    assert same(Array(), Array()) is None
