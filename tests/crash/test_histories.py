"""R2: what processes read while others overwrite it, as histories that must be linearizable, and how often it is missed."""

import contextlib
import json
import math
import random
import time

import diskcache
import pytest
from linearizable import Operation, violation
from shared_world import raising_at_close_only, without_stamps

from ibidem import Guard, Read, Write, wrap
from ibidem.stores.disk import Disk
from ibidem.testing import a_key, an_entry
from processes import KEY, SOAK, Child, Log, children, lines

READS = 100_000 if SOAK else 10_000
HISTORIES = 200
NAMES = ("a", "b")
LARGE = "x" * 40_000
"""More than `diskcache` keeps in a row: by default, it puts such a value into a file beside."""


# -- three kinds of registers: the rows of our database, a guarded world, and diskcache with its files --------------------------


class Rows:
    """Rows of the database, without the memory of this process in front of them."""

    def __init__(self, folder, seed):
        self.disk = Disk(folder / "store", key=KEY)

    def write(self, name, value):
        self.disk.put(a_key(name), an_entry(value=[value, LARGE], stored_at=self.disk.now(), ttl=None, cells=()))
        self.disk.flush()

    def read(self, name):
        self.disk._memory.close()
        found = self.disk.get(a_key(name))
        return found and found.value[0]

    def clear(self):
        self.disk.forget(lambda *_: True)


class Guarded:
    """A small world in files, read and written through a guard."""

    def __init__(self, folder, seed):
        rng = random.Random(seed)

        def pause():
            time.sleep(rng.choice((0, 0, 0.0003)))

        def read(name):
            pause()
            with contextlib.suppress(FileNotFoundError):
                return int((folder / f"{name}.world").read_text() or 0)

        def write(name, value):
            pause()
            new = folder / f"{name}.world.{seed}"
            new.write_text(f"{value}")
            new.replace(folder / f"{name}.world")
            pause()

        guard = Guard(store=Disk(folder / "store", key=KEY))
        self.write = wrap(Write("r:{name}")(write), guard)
        self.read = wrap(Read("r:{name}", scope="shared", identity="read")(read), guard)
        self.folder = folder

    def clear(self):
        for name in NAMES:
            self.write(name, "")


class SideFiles:
    """diskcache as it comes."""

    def __init__(self, folder, seed):
        self.cache = diskcache.Cache(str(folder / "diskcache"))

    def write(self, name, value):
        self.cache.set(name, f"{value} {LARGE}")

    def read(self, name):
        found = self.cache.get(name)
        return found and int(found.partition(" ")[0])

    def clear(self):
        self.cache.clear()


def player(pipe, make, folder, number):
    """Plays histories as it is told: reads and writes at random, and says when each began and ended, and what it gave."""
    registers, rng = make(folder, number), random.Random(number)
    for history in iter(pipe.recv, "end"):
        if history == "clear":
            registers.clear()
            pipe.send("cleared")
            continue
        told = []
        for n in range(12):
            name, began = rng.choice(NAMES), time.monotonic()
            if rng.random() < 0.3:
                value = 1000 * (number + 1) + n + 1
                registers.write(name, value)
                told.append((name, "write", value, began, time.monotonic(), f"{number}"))
            else:
                value = registers.read(name)
                told.append((name, "read", value or None, began, time.monotonic(), f"{number}"))
        pipe.send(told)


def histories(make, folder, count):
    """Give recorded histories of three processes."""
    with children(player, *((make, folder, number) for number in range(3))) as players:
        for n in range(count):
            assert players[0].ask("clear") == "cleared"
            for each in players:
                each.tell(n)
            yield [Operation(*told) for each in players for told in each.hear()]


@pytest.mark.soak
@pytest.mark.parametrize("make", [Rows, Guarded])
def test_every_recorded_history_is_linearizable_r2(tmp_path, make):
    overlapping = 0
    for history in histories(make, tmp_path, HISTORIES):
        assert violation(history) is None
        writes = [each for each in history if each.kind == "write"]
        overlapping += any(
            write.began < other.ended and other.began < write.ended and write.process != other.process
            for write in writes
            for other in history
            if write.register == other.register
        )
    assert overlapping > HISTORIES / 2, "too little happened at the same time to show anything"


def test_diskcache_with_side_files_is_rejected_r2(tmp_path):
    ends = time.monotonic() + 20
    for history in histories(SideFiles, tmp_path, 10_000):
        if violation(history) is not None:
            return
        if time.monotonic() > ends:
            pytest.skip("diskcache did not miss a value in 20 s; it usually takes less than one")


class WithoutStamps(Guarded):
    def __init__(self, folder, seed):
        without_stamps()
        super().__init__(folder, seed)


class RaisingAtCloseOnly(Guarded):
    def __init__(self, folder, seed):
        raising_at_close_only()
        super().__init__(folder, seed)


@pytest.mark.parametrize("make", [WithoutStamps, RaisingAtCloseOnly])
def test_a_broken_store_is_rejected_r2(tmp_path, make):
    assert any(violation(history) is not None for history in histories(make, tmp_path, 400))


# -- histories with kills -------------------------------------------------------------------------------------------------


def mortal(pipe, folder, number):
    """Reads and writes a guarded world for ever, and logs the beginning and the end of each operation."""
    registers, rng, log = Guarded(folder, number), random.Random(number), Log(folder / f"{number}.history")
    pipe.send("ready")
    for n in range(10_000):
        name, value = rng.choice(NAMES), None
        if rng.random() < 0.3:
            value = 10_000 * number + n + 1
            log(json.dumps([n, name, "write", value, time.monotonic()]))
            registers.write(name, value)
        else:
            log(json.dumps([n, name, "read", None, time.monotonic()]))
            value = registers.read(name)
        log(json.dumps([n, value, time.monotonic()]))


def recorded(path):
    """Give the operations of one process; what has no end is that in whose middle it died."""
    begun = {}
    for line in lines(path):
        n, *told = json.loads(line)
        if len(told) == 2:
            name, kind, _, began = begun.pop(n)
            yield Operation(name, kind, told[0], began, told[1], path.stem)
        else:
            begun[n] = told
    for name, kind, value, began in begun.values():
        yield Operation(name, kind, value, began, process=path.stem)


@pytest.mark.soak
def test_histories_with_processes_killed_in_the_middle_are_linearizable_r1_r2(tmp_path):
    unfinished = 0
    for n in range(HISTORIES // (1 if SOAK else 20)):
        folder = tmp_path / f"{n}"
        folder.mkdir()
        rng = random.Random(n)
        with children(mortal, (folder, 1), (folder, 2)) as running:
            for each in running:
                assert each.hear() == "ready"
            for life in range(3, 5):
                time.sleep(rng.uniform(0, 0.03))
                running.pop(rng.randrange(2)).kill()
                running.append(Child(mortal, folder, life))
                assert running[-1].hear() == "ready"
        history = [operation for path in folder.glob("*.history") for operation in recorded(path)]
        assert violation(history) is None
        unfinished += sum(each.kind == "write" and each.ended == math.inf for each in history)
    assert unfinished > 0, "nobody was killed in the middle of a write"


# -- misses -----------------------------------------------------------------------------------------------------------------

KEYS = 4


def overwriter(pipe, folder, number):
    registers = Rows(folder, number)
    for n in range(10**9):
        registers.write(f"{n % KEYS}", n)
        if n == KEYS:
            pipe.send("ready")


def reader(pipe, folder, count):
    registers = Rows(folder, 0)
    pipe.send(sum(registers.read(f"{n % KEYS}") is None for n in range(count)))


@pytest.mark.soak
def test_no_existing_key_is_missed_while_others_overwrite_it_r2(tmp_path):
    with children(overwriter, (tmp_path, 0), (tmp_path, 1)) as writers:
        for each in writers:
            assert each.hear() == "ready"
        with children(reader, (tmp_path, READS // 2), (tmp_path, READS // 2)) as readers:
            assert [each.hear(300) for each in readers] == [0, 0]
