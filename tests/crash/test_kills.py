"""R1: processes that store large and small results, and change what they depend on, are killed at random moments.

Each writer logs, before or after it does a thing, so that every line understates what it has done: a result is `acknowledged`
after `flush` returned, a change has `begun` before it opens and `ended` after it has closed.
"""

import collections
import itertools
import math
import os
import random
import time

import pytest

from ibidem.stores.disk import Disk
from ibidem.stores.shared import SharedStamps
from ibidem.testing import a_key, an_entry, read_cells, resources, write_cells
from processes import KEY, SOAK, Child, Log, lines

KILLS = 500 if SOAK else 50
WRITERS = 3
KEYS = 12
RESOURCES = 4
CELLS = [read_cells(resources(f"r:{n}")) for n in range(RESOURCES)]
RAISED = [write_cells(resources(f"r:{n}")) for n in range(RESOURCES)]


def text_of(writer, number, version, size):
    """A result that tells what it should be: who wrote it, which version of the world it saw, and as much more."""
    head = f"{writer} {number} {version} {size} "
    return head + (f"{number:x}." * size)[: size - len(head)]


def version(folder, about):
    """Give the version of a resource: one byte for each change, written by whoever makes it."""
    return os.path.getsize(folder / f"version {about}")


def write(pipe, folder, writer, life, acknowledges):
    """Store results, acknowledge them, and change the world, until killed.

    Args:
        acknowledges: How it waits until results are on the disk; `never` is the control.
    """
    rng, log, number = random.Random(life), Log(folder / f"{writer}.log"), life * 1_000_000
    worlds = [Log(folder / f"version {n}") for n in range(RESOURCES)]
    disk = Disk(folder / "store", key=KEY)
    log(f"joined {time.monotonic()}")
    pipe.send("ready")
    stored = []
    while True:
        number += 1
        name = rng.randrange(KEYS)
        about = name % RESOURCES
        if acknowledges == "flush" and rng.random() < 0.05:  # a write tool
            log(f"begun {about}")
            opening = disk.stamps.open(RAISED[about], RAISED[about])
            time.sleep(rng.choice((0, 0.001, 0.003)))
            worlds[about]("")
            log(f"changed {about} {version(folder, about)}")
            time.sleep(rng.choice((0, 0.001, 0.003)))
            opening.close(RAISED[about])
            log(f"ended {about} {time.monotonic()}")
        else:  # a read tool
            at, snapshot, size = time.monotonic(), disk.stamps.now(), int(200 * 1000 ** rng.random())
            text = text_of(writer, number, version(folder, about), size)
            time.sleep(rng.choice((0, 0.001, 0.002)))
            if disk.stamps.still(CELLS[about]) and disk.stamps.fresh(CELLS[about], snapshot):
                entry = an_entry(
                    value=text, snapshot=snapshot, stored_at=disk.now(), ttl=None, cells=CELLS[about], size=size
                )
                disk.put(a_key(f"{writer} {name}"), entry)
                stored.append(f"acknowledged {name} {number} {at}")
        if len(stored) >= rng.randrange(1, 12):
            if acknowledges == "flush":
                disk.flush()
            for each in stored:
                log(each)
            stored = []


class Known:
    """What the logs say by now."""

    def __init__(self, folder, dead=None):
        self.acknowledged = {}
        """By key: the number of the last result that was acknowledged, and when its read had not yet begun."""
        self.touched = [0.0] * RESOURCES
        """By resource: when the last change of it had certainly ended, or been buried."""
        self.least = [0] * RESOURCES
        """By resource: the version that a change has made which had ended, or whose process was dead."""
        for writer in range(WRITERS):
            open_, changed = None, None
            for what, *told in map(str.split, lines(folder / f"{writer}.log")):
                if what == "acknowledged":
                    name, number, at = told
                    self.acknowledged[f"{writer} {name}"] = int(number), float(at)
                elif what == "begun":
                    open_, changed = int(told[0]), None
                elif what == "changed":
                    changed = int(told[1])
                elif open_ is not None:  # ended, or the next life has joined
                    self._end(open_, changed, float(told[-1]))
                    open_ = None
            if open_ is not None:
                self._end(open_, changed if writer == dead else None, math.inf)

    def _end(self, about, changed, at):
        self.touched[about] = max(self.touched[about], at)
        self.least[about] = max(self.least[about], changed or 0)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def look(folder, dead, counts, opened):
    """Count what is found in a store that others go on using, after a kill and before the killed writer begins again."""
    known = Known(folder, dead)
    began = time.perf_counter()
    disk = Disk(folder / "store", key=KEY)
    found = {key: disk.get(a_key(key)) for key in known.acknowledged}
    opened.append(time.perf_counter() - began)
    pids = [int(path.name.partition("-")[0]) for path in (folder / "store" / "open").iterdir()]
    counts["dead journals"] += sum(not alive(pid) for pid in pids)
    missing = []
    for key, entry in found.items():
        if entry is None or not disk.stamps.fresh(entry.cells, entry.snapshot):
            missing.append(key)
            continue
        writer, number, seen, size, _ = entry.value.split(" ", 4)
        about = int(key.split()[1]) % RESOURCES
        counts["found"] += 1
        counts["torn"] += entry.value != text_of(writer, int(number), seen, int(size))
        counts["another's"] += not key.startswith(f"{writer} ")
        counts["stale"] += int(seen) < known.least[about]
        counts["older than acknowledged"] += int(number) < known.acknowledged[key][0]
    for key in untouched(folder, known, missing):
        time.sleep(1.1)  # where SQLite was busy, the database is left alone for a second
        break
    missing = [key for key in missing if disk.get(a_key(key)) is None]
    counts["lost"] += len(untouched(folder, known, missing))
    disk.close()


def untouched(folder, known, keys):
    """Give those of which nothing that they are about has changed since their result was read."""
    later = Known(folder)
    return [key for key in keys if later.touched[int(key.split()[1]) % RESOURCES] < known.acknowledged[key][1]]


def play(folder, kills, acknowledges="flush"):
    """Kill one writer after the other, look at the store after each, and give what was found and how long opening took."""
    for about in range(RESOURCES):
        (folder / f"version {about}").touch()
    rng, counts, opened, lives = random.Random(1), collections.Counter(), [], itertools.count(1)
    writers = [Child(write, folder, writer, next(lives), acknowledges) for writer in range(WRITERS)]
    try:
        for writer in writers:
            assert writer.hear() == "ready"
        for _ in range(kills):
            time.sleep(rng.uniform(0, 0.1))
            dead = rng.randrange(WRITERS)
            writers[dead].kill()
            look(folder, dead, counts, opened)
            writers[dead] = Child(write, folder, dead, next(lives), acknowledges)
            assert writers[dead].hear() == "ready"
    finally:
        for writer in writers:
            writer.kill()
    return counts, opened


WRONG = ("lost", "torn", "stale", "another's", "older than acknowledged", "dead journals")
SQLITES_OWN = {"results/cache.db-wal", "results/cache.db-shm"}
"""SQLite takes them away when the next process that writes closes."""


@pytest.mark.soak
def test_nothing_acknowledged_is_lost_torn_or_stale_and_nothing_is_left_after_kills_r1_r6(tmp_path):
    counts, opened = play(tmp_path, KILLS)
    assert {what: counts[what] for what in WRONG} == dict.fromkeys(WRONG, 0)
    assert counts["found"] > 5 * KILLS, "too little was there to show anything"
    assert sorted(opened)[KILLS // 2] < 0.5, "R6: a store is open again within 500 ms"
    Disk(tmp_path / "store", key=KEY).close()
    left = {str(path.relative_to(tmp_path / "store")) for path in (tmp_path / "store").rglob("*")}
    assert left - SQLITES_OWN == {"stamps", "open", "results", "results/cache.db"}


def test_the_check_sees_what_is_lost_where_nobody_waited_for_the_disk_r1(tmp_path):
    counts, _ = play(tmp_path, 3, acknowledges="never")
    assert counts["lost"] + counts["older than acknowledged"] > 0


def test_the_check_sees_what_is_stale_where_stamps_are_not_asked_r1(tmp_path, monkeypatch):
    monkeypatch.setattr(SharedStamps, "fresh", lambda self, cells, snapshot: True)
    counts, _ = play(tmp_path, 8)
    assert counts["stale"] > 0
