"""The memo under controlled schedules: R22, and that the check can fail."""

import asyncio
import os

import pytest
from worlds import Guarded, play

from ibidem import Guard, Memory
from ibidem.core.stamps import MemoryStamps
from ibidem.layers.memo import Memo
from ibidem.testing import Stuck, run_shuffled

SOAK = bool(os.environ.get("IBIDEM_SOAK"))
SEEDS = 10_000 if SOAK else 1_000


@pytest.mark.soak
def test_r22_no_read_is_older_than_a_write_that_had_finished():
    memo = shared = 0
    for seed in range(SEEDS):
        world = play(seed)
        assert world.wrong == [], f"seed {seed}"
        assert len(world.tools) == 0, f"seed {seed} left a flight behind"
        assert not world.tools.guard.store.stamps._open, f"seed {seed} left a change open"
        memo += world.tools.guard.stats().memo
        shared += world.tools.guard.stats().shared
    assert memo > SEEDS and shared > SEEDS / 5, "too little was answered without a run to show anything"


class Naive:
    """What people write: a dictionary of futures by arguments, and a write that forgets the resource when it is done."""

    def __init__(self, tools):
        self.tools, self.world, self.cache, self.flights = tools, tools.world, {}, {}
        self.guard, self.enter = tools.guard, tools.enter

        def remembered(kind):
            async def read(name):
                key = kind, name
                if key in self.cache:
                    return self.cache[key]
                if key not in self.flights:
                    self.flights[key] = asyncio.ensure_future(self.world.look(name))
                    self.flights[key].add_done_callback(lambda done: landed(key, done))
                return await asyncio.shield(self.flights[key])

            def landed(key, done):
                del self.flights[key]
                self.cache[key] = done.result()

            return read

        async def write(name, done):
            try:
                await self.world.change([name], "declared", done)
            finally:
                for key in [key for key in self.cache if key[1] == name]:
                    del self.cache[key]

        self.write, self._reads = write, [("read", "conversation", remembered("read"))]
        self.write_all = lambda done: write("a", done)
        self.write_also = write
        self.unknown = self.unknown_reading = lambda name, by, done: write(name, done)
        self.agent = lambda job: job()

    def reads(self):
        return self._reads


def wrongs(make, seeds=60):
    return sum(bool(play(seed, make).wrong) for seed in range(seeds))


def test_r22_control_a_naive_dictionary_of_futures_is_caught():
    assert wrongs(lambda world: Naive(Guarded(world, Guard()))) > 5


class Blind(MemoryStamps):
    def fresh(self, cells, snapshot):
        return True


class NeverOpen(MemoryStamps):
    def still(self, cells):
        return True


class RaisesOnlyAtTheEnd(MemoryStamps):
    def open(self, raised, held):
        return super().open((), held)


class RaisesOnlyAtTheStart(MemoryStamps):
    def _close(self, held, raised):
        super()._close(held, ())


def with_stamps(stamps):
    def make(world):
        store = Memory()
        store.stamps = stamps()
        return Guarded(world, Guard(store=store))

    return make


@pytest.mark.parametrize("stamps", [Blind, RaisesOnlyAtTheStart])
def test_r22_control_stamps_that_miss_something_are_caught(stamps):
    assert wrongs(with_stamps(stamps), 150) > 0


def test_r22_control_joining_whatever_is_under_way_is_caught(monkeypatch):
    monkeypatch.setattr(Memo, "_joinable", lambda self, call, flight: True)
    assert wrongs(lambda world: Guarded(world, Guard()), 150) > 0


def test_r22_control_taking_the_snapshot_after_the_run_is_caught(monkeypatch):
    keep = Memo._keep

    def late(self, call, flight, outcome):
        flight.snapshot = self.store.stamps.now()
        return keep(self, call, flight, outcome)

    monkeypatch.setattr(Memo, "_keep", late)
    assert wrongs(lambda world: Guarded(world, Guard()), 150) > 0


def test_the_loop_gives_the_same_run_for_the_same_seed_and_others_for_others():
    def order(seed, **how):
        found = []

        async def one(n):
            for _ in range(3):
                found.append(n)
                await asyncio.sleep(0)

        async def main():
            await asyncio.gather(*map(one, range(4)))

        run_shuffled(main(), seed, **how)
        return tuple(found)

    assert order(1) == order(1)
    assert len({order(seed) for seed in range(20)}) > 15
    assert {order(seed, fifo=True) for seed in range(5)} == {(0, 1, 2, 3) * 3}


def test_the_loop_sleeps_in_no_time_and_in_order():
    found = []

    async def one(seconds):
        await asyncio.sleep(seconds)
        found.append((seconds, asyncio.get_running_loop().time()))

    async def main():
        await asyncio.gather(*map(one, (3600, 60, 86400)))

    run_shuffled(main(), 0)
    assert found == [(60, 60), (3600, 3600), (86400, 86400)]


def test_the_loop_says_when_every_task_waits_for_ever():
    async def main():
        await asyncio.get_running_loop().create_future()

    with pytest.raises(Stuck):
        run_shuffled(main(), 0)
