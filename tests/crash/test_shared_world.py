"""Processes that share a store, and are killed in the middle of what they do: no answer is stale, and the judge can tell."""

import contextlib
import random
import time
from collections import namedtuple
from multiprocessing.connection import wait

import pytest
from shared_world import BROKEN, begin, calls, work, wrong

from processes import SOAK, Child

CALLS = 10_000 if SOAK else 2_000
Happened = namedtuple("Happened", "reads kills served")


def play(folder, seed, *, workers=2, count=CALLS, every=0.1, rest=0.0, busy=0.06, fatal=0.05, broken=None):
    """Let workers call until `count` calls have ended, and killed ones begin again; give what was wrong, and what happened.

    Args:
        every: Seconds from one kill to the next, on the average; besides, workers kill themselves in the middle of changes.
        rest: Seconds until a killed worker begins again.
    """
    folder.mkdir()
    begin(folder)
    rng, lives, deaths, running = random.Random(seed), {}, {}, {}

    def start(worker):
        life = len(lives) + 1
        lives[life] = worker
        running[worker] = life, Child(work, folder, worker, life, busy, fatal, broken)

    def bury(worker):
        life, child = running[worker]
        deaths[life] = child.kill()
        time.sleep(rest)
        start(worker)

    for worker in range(workers):
        start(worker)
    try:
        while calls(folder)[0] < count:
            dead = wait([child.sentinel for _, child in running.values()], rng.uniform(0, 2 * every))
            victims = [worker for worker, (_, child) in running.items() if child.sentinel in dead]
            for worker in victims or [rng.randrange(workers)]:
                bury(worker)
        for worker in range(workers):
            life, child = running[worker]
            with contextlib.suppress(OSError, EOFError):  # it has just killed itself
                child.tell("end")
            child.wait()
            deaths[life] = child.kill()
    finally:
        for _, child in running.values():
            child.kill()
    found, reads = wrong(folder, lives, deaths)
    return found, Happened(reads, len(deaths), calls(folder)[1])


@pytest.mark.soak
@pytest.mark.parametrize("workers", [2, 3])
def test_no_answer_is_stale_though_processes_are_killed_in_the_middle_of_writes_r1_r22(tmp_path, workers):
    found, happened = play(tmp_path / "world", seed=workers, workers=workers)
    assert found == []
    assert happened.reads > CALLS / 2 and happened.kills >= 5 and happened.served > CALLS / 20, "too little"


@pytest.mark.parametrize("broken", BROKEN)
def test_the_judge_rejects_a_store(tmp_path, broken):
    for seed in range(30):
        found, _ = play(tmp_path / f"{seed}", seed, count=400, every=1, rest=0.05, fatal=0.3, broken=broken)
        if found:
            return
    pytest.fail("nothing wrong was found")
