"""R11, R13, R16: no record but our own is believed, and whatever is read, only typed errors come of it."""

import math
import os
import random
import struct
import uuid
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from disk_kit import SOAK
from hypothesis import given, settings
from hypothesis import strategies as st

from ibidem.core.keys import NoExactKey, canonical
from ibidem.stores import records as module
from ibidem.stores.codec import LARGEST, NotDecoded, NotEncoded, decode, encode
from ibidem.stores.records import Records
from ibidem.testing import a_key, an_entry

MUTATIONS = 100_000 if SOAK else 10_000
EXAMPLES = 2_000 if SOAK else 200
KEY = bytes(range(32))
LIFE, OTHER_LIFE = b"a" * 16, b"b" * 16


def written(records, count=40):
    """Records of several keys and sizes: `(row, record)`."""
    found = []
    for n in range(count):
        key = a_key(f"{n}")
        row = records.row(key)
        found.append((row, records.write(row, key, an_entry(value={"n": n, "text": "x" * (n * 7)}), LIFE)))
    return found


def mutated(rng, all_of_them):
    """One of the records, changed, or in another's place, or of another life: `(row, record, life)`."""
    row, record = rng.choice(all_of_them)
    kind = rng.randrange(7)
    if kind == 0:
        at = rng.randrange(len(record))
        return row, record[:at] + bytes([record[at] ^ (1 << rng.randrange(8))]) + record[at + 1 :], LIFE
    if kind == 1:
        return row, record[: rng.randrange(len(record))], LIFE
    if kind == 2:
        return row, record + rng.randbytes(rng.randrange(1, 64)), LIFE
    if kind == 3:
        other = rng.choice([one for one in all_of_them if one[0] != row])
        return other[0], record, LIFE
    if kind == 4:
        return row, record, OTHER_LIFE
    other = rng.choice([one for one in all_of_them if one[0] != row])[1]
    if kind == 5:  # one's MAC, another's contents
        return row, record[:32] + other[32:], LIFE
    at = rng.randrange(33, min(len(record), len(other)))
    return row, record[:at] + other[at:], LIFE


def accepted(records, count, seed=1):
    rng, all_of_them = random.Random(seed), written(records)
    known = set(all_of_them)
    found = 0
    for _ in range(count):
        row, record, life = mutated(rng, all_of_them)
        if life == LIFE and (row, record) in known:  # it was put together as it had been
            continue
        found += records.read(row, record, life) is not None or records.listed(row, record, life) is not None
    return found


@pytest.mark.soak
def test_no_changed_record_is_accepted_r11():
    records = Records(KEY)
    assert all(records.read(row, record, LIFE) is not None for row, record in written(records))
    assert accepted(records, MUTATIONS) == 0


def test_no_changed_encrypted_record_is_accepted_r11():
    pytest.importorskip("cryptography")
    assert accepted(Records(KEY, KEY), MUTATIONS // 10) == 0


def test_the_check_can_fail_r11(monkeypatch):
    monkeypatch.setattr(module.hmac, "compare_digest", lambda *_: True)
    assert accepted(Records(KEY), 1_000) > 0


@pytest.mark.parametrize("pair", ["key", "encryption key", "plain by encrypted", "encrypted by plain"])
def test_records_of_another_key_are_misses_r11(pair):
    pytest.importorskip("cryptography")
    writer, reader = {
        "key": (Records(KEY), Records(KEY[::-1])),
        "encryption key": (Records(KEY, KEY), Records(KEY, KEY[::-1])),
        "plain by encrypted": (Records(KEY), Records(KEY, KEY)),
        "encrypted by plain": (Records(KEY, KEY), Records(KEY)),
    }[pair]
    for row, record in written(writer):
        assert writer.read(row, record, LIFE) is not None
        assert reader.read(row, record, LIFE) is None
        assert reader.listed(row, record, LIFE) is None


def test_what_is_authentic_and_yet_unreadable_is_a_miss_r13():
    """As after a change of format: whoever has the key may have written anything."""
    records, rng = Records(KEY), random.Random(3)
    row, record = written(records)[5]
    head = record[32 : module._START]
    for _ in range(2_000):
        rest = rng.choice(
            (rng.randbytes(rng.randrange(60)), b'["tool","1",[5]]', b"", b"[[" * 5_000, record[module._START :])
        )
        lengths = struct.pack("<II", *(rng.choice((0, 5, 16, 2**32 - 1)) for _ in "ab"))
        made = head[:-8] + lengths
        mac = records._macs(module._FORMAT + row + made + rest)
        for read in (records.read, records.listed):
            read(row, mac + made + rest, LIFE)


# -- the codec ----------------------------------------------------------------------------------------------------------

ZONES = st.sampled_from([None, UTC, timezone(timedelta(hours=5, microseconds=7), "here"), ZoneInfo("Europe/Berlin")])
TEXTS = st.text(st.characters(exclude_categories=()), max_size=8)
ATOMS = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.integers(2**63, 2**70), st.floats(), TEXTS, st.binary(max_size=8)),
    *(st.complex_numbers(), st.dates(), st.timedeltas(), st.decimals(allow_nan=False), st.uuids()),
    st.datetimes(timezones=ZONES),
    st.times(timezones=st.sampled_from([None, UTC])),
    st.sampled_from(
        [-0.0, math.nan, math.inf, Decimal("-0"), Decimal("-NaN7"), "\0", "\0tuple", "\ud800", "\ud83d\ude00"]
    ),
)
HASHABLE = st.recursive(ATOMS, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=4)
NAMES = st.one_of(TEXTS, st.sampled_from(["\0", "\0dict", "\0tuple", "\0set", "a"]), HASHABLE)
VALUES = st.recursive(
    ATOMS | st.binary(max_size=8).map(bytearray),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(TEXTS, inner, max_size=4),
        st.dictionaries(NAMES, inner, max_size=4),
        st.sets(HASHABLE, max_size=3),
        st.frozensets(HASHABLE, max_size=3),
    ),
    max_leaves=12,
)


def zone(value):
    if isinstance(value, timezone):
        return value is UTC, value.utcoffset(None), value.tzname(None)
    return repr(value)


def exactly(value):
    """Say all about a value that could be lost: types, order, signs of zeros, zones and folds."""
    kind = type(value).__name__
    if isinstance(value, dict):
        return kind, [(exactly(name), exactly(part)) for name, part in value.items()]
    if isinstance(value, (list, tuple)):
        return kind, [exactly(part) for part in value]
    if isinstance(value, (set, frozenset)):
        return kind, sorted((exactly(part) for part in value), key=repr)
    if isinstance(value, float):
        return kind, "nan" if math.isnan(value) else struct.pack("<d", value)
    if isinstance(value, complex):
        return kind, exactly(value.real), exactly(value.imag)
    if isinstance(value, (datetime, time)):
        return kind, value.replace(tzinfo=None), value.fold, zone(value.tzinfo)
    if isinstance(value, Decimal):
        return kind, str(value)
    return kind, value


@settings(max_examples=EXAMPLES, deadline=None)
@given(VALUES)
def test_what_is_written_is_read_exactly_r13(value):
    try:
        raw = encode(value)
    except NotEncoded:
        return
    assert exactly(decode(raw)) == exactly(value)


def test_the_check_of_exactness_can_fail():
    assert exactly({"a": 1, "b": 2}) != exactly({"b": 2, "a": 1})
    assert exactly([1, 0.0]) != exactly([True, -0.0])
    assert exactly((1,)) != exactly([1])


EVERY_TAG = {
    "a": [b"x", bytearray(b"y"), date(2020, 1, 2), datetime(2020, 1, 2, tzinfo=ZoneInfo("UTC")), time(1, fold=1)],
    "b": (timedelta(1), Decimal("1.5"), 1j, uuid.UUID(int=5), {1, 2}, frozenset({3})),
    "\0c": {("k", 1): [True, None, -0.0], "plain": {"\0dict": 1}},
}


@pytest.mark.soak
def test_reading_what_nobody_has_written_raises_typed_errors_only_r13():
    rng, raw = random.Random(5), encode(EVERY_TAG)
    pieces = [b"\\u0000" + tag for tag in (b"tuple", b"set", b"dict", b"uuid", b"decimal", b"datetime", b"bytes", b"x")]
    pieces += [
        b'"',
        b"{",
        b"}",
        b"[",
        b"]",
        b":",
        b",",
        b"5",
        b"null",
        b"1e999",
        b'"America"',
        b'"../x"',
        b"NaN",
        b"\xff",
    ]
    refused = 0
    for _ in range(MUTATIONS // 2):
        changed = bytearray(rng.choice((raw, rng.choice((b"j", b"t", b"")) + rng.randbytes(rng.randrange(20)))))
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(changed) + 1)
            changed[at : at + rng.randrange(12)] = rng.choice((*pieces, rng.randbytes(3)))
        try:
            decode(bytes(changed))
        except NotDecoded:
            refused += 1
    assert refused > MUTATIONS // 4, "too little was changed to show anything"


@pytest.mark.parametrize(
    "told",
    [
        *('{"\\u0000uuid":5}', '{"\\u0000bytes":[]}', '{"\\u0000datetime":["2020-01-01",0,"America"]}'),
        *('{"\\u0000datetime":["2020-01-01",0,"/etc/passwd"]}', '{"\\u0000time":[5,0,null]}', '{"\\u0000decimal":{}}'),
        *('{"\\u0000dict":[[[],1]]}', '{"\\u0000set":[[]]}', '{"\\u0000nothing":1}', '{"\\u0000timedelta":[1e99]}'),
        *('{"\\u0000complex":"xy"}', '{"\\u0000datetime":[]}', '{"\\u0000dict":5}', "[" * 100_000, "9" * 5_000, ""),
        '{"\\u0000tuple":[' * 200 + "]}" * 200,
    ],
    ids=lambda told: told[:30],
)
def test_a_strange_record_raises_a_typed_error_r13(told):
    with pytest.raises(NotDecoded):
        decode(b"j" + told.encode())


class Hostile(dict):
    def items(self):
        raise SystemError("boom")


def shared(depth):
    value = [date(2020, 1, 1)]
    for _ in range(depth):
        value = [value, value]
    return value


@pytest.mark.parametrize(
    "value",
    [Hostile(), object(), [object()], 10**5_000, shared(60), ["x" * 1_000] * 1_000_000, [b"x" * 1_000] * 1_000_000]
    + [
        [10**4_000] * 1_000_000,
        "x" * (2 * LARGEST),
        datetime(2020, 1, 1, tzinfo=type("T", (timezone.__base__,), {})()),
    ],
    ids=["subclass", "object", "inside", "digits", "shared", "texts", "bytes", "numbers", "long", "zone"],
)
def test_what_cannot_be_written_is_refused_with_a_typed_error_and_soon_r12_r13(value):
    records = Records(KEY)
    with pytest.raises(NotEncoded):
        records.write(records.row(a_key()), a_key(), an_entry(value=value), LIFE)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.dictionaries(TEXTS, VALUES, max_size=4))
def test_the_key_encoder_raises_typed_errors_only_r13(arguments):
    try:
        assert isinstance(canonical(arguments), bytes)
    except NoExactKey:
        pass


def test_the_descriptor_count_is_not_touched_by_time_zones_r10():
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for name in ("America", "posixrules/..", "../../etc/passwd", "", "\0", "\ud800"):
        with pytest.raises(NotDecoded):
            decode(b"j" + f'{{"\\u0000time":["00:00:00",0,"{name}"]}}'.encode("utf-8", "surrogatepass"))
    assert before == (len(os.listdir("/proc/self/fd")) if before else 0)
