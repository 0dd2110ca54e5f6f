"""R14: a key is injective, or refused."""

import dataclasses
import enum
import itertools
import json
import math
import os
import random
import struct
import subprocess
import sys
import uuid
from collections import OrderedDict, defaultdict, namedtuple
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import PurePosixPath, PureWindowsPath
from unittest import mock
from zoneinfo import ZoneInfo

import pydantic
import pytest

from ibidem.core import keys
from ibidem.core.keys import NoExactKey, canonical, exact


class Colour(enum.Enum):
    RED = 1
    BLUE = 2
    NAMED = "RED"


class Shade(enum.Enum):
    RED = 1


class Word(str, enum.Enum):
    RED = "red"


class Bits(enum.Flag):
    A = 1
    B = 2
    C = 4


@dataclasses.dataclass
class Point:
    x: object
    y: object = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    x: object
    y: object = 0


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    x: object = None
    y: object = 0


class Root(pydantic.RootModel[list[int]]):
    pass


Pair = namedtuple("Pair", "x y")

ATOMS = [
    None, True, False, 0, 1, -1, 2, 10, 2**53, 2**53 + 1, 2**64, 2**200, 0.0, -0.0, 1.0, 0.1, 1e300, 5e-324,
    float(2**53), math.inf, -math.inf, math.nan, "", "1", "1.0", "True", "None", "null", "true", "NaN", "nan", "a", "A",
    "é", "e\u0301", "\u212b", "Å", "😀", "\ud83d\ude00", "\ud83d", "\ude00", "\\ud83d\\ude00", "\0", "\0tuple", "\0set",
    "\0dict", " ", "a ", "[]", "{}", '"', "\\", "\n", "\\n", "\u2028", b"", b"1", b"a", b"\0", bytearray(b"a"), bytearray(),
    Colour.RED, Colour.BLUE, Colour.NAMED, Shade.RED, Word.RED, "red", Bits.A, Bits.B, Bits.A | Bits.B, Bits(0),
    Decimal(1), Decimal("1.0"), Decimal("1.00"), Decimal("1E+1"), Decimal(10), Decimal("-0"), Decimal(0),
    Decimal("NaN"), Decimal("sNaN"), Decimal("NaN1"), Decimal("Infinity"), 1j, 1 + 0j, complex(-0.0, 1), complex(0, -1),
    date(2024, 1, 1), datetime(2024, 1, 1), datetime(2024, 10, 27, 2, 30, fold=1), datetime(2024, 10, 27, 2, 30),
    datetime(2024, 1, 1, tzinfo=timezone.utc), datetime(2024, 1, 1, tzinfo=ZoneInfo("UTC")),
    datetime(2024, 1, 1, tzinfo=timezone(timedelta(0), "Z")), datetime(2024, 1, 1, tzinfo=ZoneInfo("Europe/London")),
    datetime(2024, 1, 1, 1, tzinfo=timezone(timedelta(hours=1))), datetime(2024, 1, 1, 0, 0, 0, 1),
    time(1), time(1, fold=1), time(1, tzinfo=timezone.utc), timedelta(1), timedelta(0), timedelta(0, 0, 1), timedelta(-1),
    uuid.UUID(int=1), uuid.UUID(int=2), str(uuid.UUID(int=1)), PurePosixPath("a"), PureWindowsPath("a"), PurePosixPath("a/b"),
    "2024-01-01", "2024-01-01T00:00:00",
]  # fmt: skip


def a_value(rng, depth=3):
    """A random value: an atom, or a container of whatever kind."""
    if depth == 0 or rng.random() < 0.4:
        return rng.choice(ATOMS)
    size = rng.choice((0, 1, 1, 2, 3))
    kind = rng.randrange(10)
    if kind in (0, 1):
        return [a_value(rng, depth - 1) for _ in range(size)]
    if kind in (2, 3):
        return tuple(a_value(rng, depth - 1) for _ in range(size))
    if kind == 4:
        return {
            rng.choice(("a", "b", "\0set", "\0tuple", "\0dict", "1", "")): a_value(rng, depth - 1) for _ in range(size)
        }
    if kind == 5:
        return {hashable(rng, depth - 1): a_value(rng, depth - 1) for _ in range(size)}
    if kind in (6, 7):
        return (set if kind == 6 else frozenset)(hashable(rng, depth - 1) for _ in range(size))
    if kind == 8:
        return rng.choice((Point, Slotted))(a_value(rng, depth - 1), a_value(rng, depth - 1))
    return Model(**{name: a_value(rng, depth - 1) for name in rng.sample(("x", "y", "z"), rng.randrange(4))})


def hashable(rng, depth):
    while True:
        value = a_value(rng, depth)
        try:
            hash(value)
        except TypeError:
            continue
        if not exact(value).count(b"NaN"):  # a NaN is another key each time
            return value


def same(a, b):
    """Whether two values are the same value of the same type, told without a text: the oracle."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return struct.pack("d", a) == struct.pack("d", b)
    if isinstance(a, complex):
        return same(a.real, b.real) and same(a.imag, b.imag)
    if isinstance(a, enum.Enum):
        return a is b
    if isinstance(a, Decimal):
        return a.as_tuple() == b.as_tuple()
    if isinstance(a, (datetime, time)):
        naive = a.replace(tzinfo=None) == b.replace(tzinfo=None) and a.fold == b.fold
        return naive and same_zone(a.tzinfo, b.tzinfo)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return len(a) == len(b) and all(any(same(k, m) and same(a[k], b[m]) for m in b) for k in a)
    if isinstance(a, (set, frozenset)):
        return len(a) == len(b) and all(any(same(x, y) for y in b) for x in a)
    if isinstance(a, pydantic.BaseModel):
        extra = same(a.__pydantic_extra__, b.__pydantic_extra__)
        return extra and a.__pydantic_fields_set__ == b.__pydantic_fields_set__ and same(vars(a), vars(b))
    if dataclasses.is_dataclass(a):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    return a == b


def same_zone(a, b):
    if a is None or b is None:
        return a is b
    return type(a) is type(b) and a.utcoffset(None) == b.utcoffset(None) and str(a) == str(b)


def mutated(rng, value):
    """A value that is close to another one, and perhaps the same."""
    if isinstance(value, (list, tuple)) and rng.random() < 0.7:
        parts = list(value)
        if parts and rng.random() < 0.8:
            at = rng.randrange(len(parts))
            parts[at] = mutated(rng, parts[at])
        return rng.choice((type(value), type(value), list, tuple))(parts)
    if isinstance(value, dict) and value:
        items = list(value.items())
        rng.shuffle(items)
        if rng.random() < 0.7:
            name, inner = items[0]
            items[0] = name, mutated(rng, inner)
        return dict(items)
    if isinstance(value, (set, frozenset)):
        parts = list(value)
        rng.shuffle(parts)
        return rng.choice((type(value), type(value), set, frozenset))(parts)
    if isinstance(value, bool):
        return rng.choice((value, int(value), float(value), str(value)))
    if isinstance(value, (int, float)) and math.isfinite(value) and abs(value) < 1e15:
        return rng.choice((value, value, int(value), float(value), str(value), bool(value), Decimal(value), -value))
    if isinstance(value, str):
        return rng.choice((value, value, value + " ", value.upper(), [value], value.encode("utf-8", "surrogatepass")))
    return rng.choice((value, value, [value], {"a": value}, str(value)))


def test_r14_atoms_have_one_text_each():
    for (i, a), (j, b) in itertools.product(enumerate(ATOMS), repeat=2):
        assert (exact(a) == exact(b)) is (i == j) is same(a, b), (a, b)


def test_r14_20000_pairs_have_one_text_exactly_if_they_are_the_same():
    rng = random.Random(14)
    equal = 0
    for _ in range(20_000):
        a = a_value(rng)
        b = mutated(rng, a) if rng.random() < 0.8 else a_value(rng)
        assert (exact(a) == exact(b)) is same(a, b), (a, b)
        equal += same(a, b)
    assert 3_000 < equal < 17_000, "a generator that makes only one kind of pair shows nothing"


def test_r14_many_values_share_no_text():
    rng = random.Random(15)
    found = {}
    for _ in range(20_000):
        value = a_value(rng, 4)
        other = found.setdefault(exact(value), value)
        assert same(value, other), (value, other)
    assert len(found) > 8_000


def test_r14_the_order_of_names_does_not_matter():
    assert canonical({"a": 1, "b": {"x": 1, "y": [2]}}) == canonical({"b": {"y": [2], "x": 1}, "a": 1})
    assert exact({1: "a", "1": "b", None: "c"}) == exact({None: "c", "1": "b", 1: "a"})


def test_r14_texts_do_not_depend_on_the_hash_seed():
    program = f"""
import dataclasses, hashlib, importlib.util, sys
spec = importlib.util.spec_from_file_location("keys", {keys.__file__!r})  # alone: it is 20 processes
keys = sys.modules["keys"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(keys)

@dataclasses.dataclass
class Box:
    x: object

digest = hashlib.sha256()
words = [*map(str, range(40)), b"a", 1.5, None, (1, "a"), frozenset("xyz"), True]
for value in (set(words), frozenset(words), dict.fromkeys(words, 1), Box([set("abc"), {{"b": 1, "a": set("de")}}])):
    digest.update(keys.exact(value))
print(digest.hexdigest(), list(set("abcdefg")))
"""

    def start(seed):
        environment = {**os.environ, "PYTHONHASHSEED": str(seed)}
        return subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True)

    texts, orders = set(), set()
    for first in range(0, 20, 4):
        for process in [start(seed) for seed in range(first, first + 4)]:
            text, order = process.communicate()[0].split(maxsplit=1)
            texts.add(text)
            orders.add(order)
    assert len(texts) == 1 and len(texts.pop()) == 64
    assert len(orders) > 5, "the seeds must have changed the order of sets"


# -- what is refused ---------------------------------------------------------------------------------------------------


class Text(str):  # noqa: SLOT000
    pass


class Number(int):
    pass


class Real(float):
    pass


class Things(list):
    pass


class Plain:
    def __init__(self):
        self.x = 1


@dataclasses.dataclass
class TextWithFields(str):  # noqa: SLOT000
    x: int = 0


@dataclasses.dataclass
class ListWithFields(list):
    x: int = 0


@dataclasses.dataclass
class FailureWithFields(Exception):
    x: int = 0


class HiddenSlot:
    __slots__ = ("hidden",)


@dataclasses.dataclass
class PointWithSlot(HiddenSlot):
    x: int = 0


class PrivateModel(pydantic.BaseModel):
    x: int = 0
    _y: int = pydantic.PrivateAttr(0)


class SlottedModel(pydantic.BaseModel):
    __slots__ = ("hidden",)
    x: int = 0


class MyPath(PurePosixPath):
    pass


class MyDate(datetime):
    pass


class Odd(enum.Enum):
    PLAIN = Plain()


def with_attribute(value):
    value.more = 1
    return value


def a_generator():
    yield 1


NOT_EXACT = [
    Text("a"), Number(1), Real(1.0), Things([1]), Plain(), object(), Plain, len, lambda: 1, a_generator(), iter([1]), range(3),
    memoryview(b"a"), OrderedDict(a=1), defaultdict(int), Pair(1, 2), MyPath("a"), MyDate(2024, 1, 1), PrivateModel(),
    with_attribute(Point(1)), TextWithFields("a"), ListWithFields(3), FailureWithFields(), PointWithSlot(),
    SlottedModel(), datetime(2024, 1, 1, tzinfo=type("Zone", (timezone.__base__,), {"utcoffset": lambda *_: None})()),
    mock.Mock(), mock.MagicMock(), mock.Mock(spec=Colour), 10**5000, ..., NotImplemented, slice(1), {"a": Plain()},
    [[[Text("a")]]], {Text("a"): 1}, {frozenset({Number(3)})}, Odd.PLAIN, struct, sys.stdout, math.pi.as_integer_ratio,
]  # fmt: skip


@pytest.mark.parametrize("nth", range(len(NOT_EXACT)), ids=[type(value).__name__ for value in NOT_EXACT])
def test_r14_what_has_no_exact_text_is_refused(nth):
    value = NOT_EXACT[nth]
    with pytest.raises(NoExactKey):
        exact(value)


def test_r14_a_refusal_names_the_argument_and_the_type():
    with pytest.raises(NoExactKey, match=r"argument 'session': a value of type .*Plain has no exact encoding"):
        canonical({"city": "Paris", "session": Plain()})


def test_r14_subclasses_with_contents_of_their_own_do_not_share_a_text():
    """A text that leaves out what the base class holds would be one text for two values."""
    for a, b in (
        (TextWithFields("a"), TextWithFields("b")),
        (FailureWithFields(1), FailureWithFields(1)),
        (PointWithSlot(1), PointWithSlot(1)),
    ):
        if isinstance(a, HiddenSlot):
            a.hidden, b.hidden = 1, 2
        texts = []
        for value in (a, b):
            try:
                texts.append(exact(value))
            except NoExactKey:
                texts.append(None)
        assert texts[0] is None or texts[0] != texts[1]


def test_r14_models_and_dataclasses_have_a_text():
    for value in (Point(1), Slotted(1), Model(x=1), Model(z=2), Root([1]), Point(Model(x=[Point(1)]))):
        assert exact(value) == exact(value)
    assert exact(Model()) != exact(Model(y=0)), "what was left out may be left out of a request"
    assert exact(Point(1, 2)) != exact(Slotted(1, 2))


class Angry:
    """Raises whatever is asked of it."""

    def _raise(self, *_, **__):
        raise RuntimeError("leave me alone")

    __eq__ = __hash__ = __repr__ = __str__ = __bool__ = __len__ = __iter__ = __getattr__ = __reduce_ex__ = _raise


class Speechless(Exception):
    def __str__(self):
        raise ValueError("no words")


class Lying:
    """Says it is something else."""

    def __init__(self, kind):
        self._kind = kind

    @property
    def __class__(self):
        return self._kind


class RaisingClass:
    @property
    def __class__(self):
        raise Speechless


@dataclasses.dataclass
class RaisingField:
    x: int = 0

    def __getattribute__(self, name):
        if name == "x":
            raise Speechless
        return super().__getattribute__(name)


class Unhashable(type):
    """The metaclass of a class that cannot be looked up in a set."""

    def __eq__(cls, other):
        raise RuntimeError("not comparable")


class OfUnhashable(metaclass=Unhashable):
    pass


class Pretender(type):
    """The metaclass of a class that claims to be str."""

    def __eq__(cls, other):
        return other is str or cls is other

    def __hash__(cls):
        return hash(str)


class OfPretender(metaclass=Pretender):
    pass


def cycle(kind):
    found = kind()
    if kind is dict:
        found["x"] = found
    else:
        found.append(found)
        found.append(found)
    return found


def nested(levels, wrap):
    value = 1
    for _ in range(levels):
        value = wrap(value)
    return value


def doubled(levels):
    """Small in memory, and endless to write down."""
    value = [1]
    for _ in range(levels):
        value = [value, value]
    return value


HOSTILE = {
    "angry": Angry(),
    "angry inside": {"a": [Angry()]},
    "raising field": RaisingField(),
    "raising class": RaisingClass(),
    "unhashable class": OfUnhashable(),
    "pretends to be str": OfPretender(),
    "pretends to be str inside": [OfPretender()],
    "lies about being an enum": Lying(Colour),
    "lies about being a path": Lying(PurePosixPath),
    "lies about being a str": Lying(str),
    "list in itself": cycle(list),
    "dict in itself": cycle(dict),
    "deep list": nested(100_000, lambda value: [value]),
    "deep tuple": nested(5_000, lambda value: (value,)),
    "deep dict": nested(5_000, lambda value: {"a": value}),
    "doubled 60 times": doubled(60),
    "huge int": 7**10_000,
    "huge int inside": {"a": [7**10_000]},
    "huge int as a name": {7**10_000: 1},
    "huge int in a dataclass": Point(-(7**10_000)),
    "huge Decimal in a set": {7**10_000},
}


@pytest.mark.parametrize("name", HOSTILE)  # by name: pytest would look at the values themselves
def test_r14_hostile_values_are_refused_with_nothing_but_that(name):
    value = HOSTILE[name]
    for attempt in (
        lambda: exact(value),
        lambda: canonical({"a": 1, "b": value}),
        lambda: canonical({"a": [], "b": value}),
    ):
        with pytest.raises(NoExactKey):
            attempt()


def test_r14_nesting_has_a_bound_far_from_what_people_write():
    for wrap in (lambda value: [value], lambda value: (value,), lambda value: {"a": value}, lambda value: {1: value}):
        assert exact(nested(99, wrap))
        with pytest.raises(NoExactKey, match="nested deeper"):
            exact(nested(101, wrap))


def test_r14_large_plain_arguments_are_not_refused():
    assert exact(list(range(200_000)))
    assert exact({"rows": [{"id": n, "name": f"row {n}"} for n in range(20_000)]})


def test_the_text_of_plain_arguments_is_plain_json():
    assert json.loads(canonical({"city": "Köln", "days": 3})) == {"city": "Köln", "days": 3}
