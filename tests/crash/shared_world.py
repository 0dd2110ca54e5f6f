"""The world of `worlds.py`, shared by processes that are killed: counters in a file, and a log from which answers are judged.

Every counter is a word of a mapped file, raised under a file lock. Each process logs, each in one write, what it has changed,
which calls have ended, and what its reads answered; times are of the one monotonic clock of the machine. A read is wrong if
it misses a change that had finished before it was issued. A change has finished when its call has ended, or when its process
was certainly dead: whatever it did, nobody will say more of it.
"""

import asyncio
import collections
import contextlib
import fcntl
import json
import mmap
import os
import signal
import time

import worlds

from ibidem import Guard
from ibidem.layers.memo import Memo
from ibidem.stores.disk import Disk
from ibidem.stores.membership import Membership
from ibidem.stores.shared import SharedStamps
from processes import KEY, Log, lines

WORKERS = 3
_USERS = 1 + len(worlds.USERS)
_BY = 3 + WORKERS * _USERS
_CALLS = _BY * len(worlds.NAMES)
_SERVED = _CALLS + WORKERS
"""Words after the counters: for each worker, how many calls have ended, and how many of them without a run."""
SIZE = mmap.PAGESIZE


def word_of(by, worker):
    """Find the counter of who changes: declared writes, the threads 1 and 2, a worker for its users or for nobody."""
    if by == "declared":
        return 0
    kind, name, user = by
    if kind == "thread":
        return int(name)
    return 3 + worker * _USERS + worlds.USERS.index(user)


class SharedWorld(worlds.World):
    """What the tools of one life of one worker act on."""

    def __init__(self, folder, worker, life, busy, fatal):
        super().__init__(life)
        self.busy, self.fatal = busy, fatal
        self.folder, self.worker, self.life = folder, worker, life
        with (folder / "world").open("r+b") as file:
            self._words = memoryview(mmap.mmap(file.fileno(), SIZE)).cast("Q")
        self._lock = os.open(folder / "world", os.O_RDWR)
        self._log = Log(folder / f"{life}.log")

    async def pause(self):
        await asyncio.sleep(self.random.choice((0, 0, 0.0005, 0.002)))

    async def look(self, *names):
        await self.pause()
        seen = {}
        for name in names:
            at = worlds.NAMES.index(name) * _BY
            seen[name] = list(self._words[at : at + _BY])
            await self.pause()
        return seen

    async def change(self, names, by, done):
        await asyncio.sleep(self.random.choice((0, 0.002, 0.01)))  # time for others to read what is about to change
        for name in names:
            at = worlds.NAMES.index(name) * _BY + word_of(by, self.worker)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            self._words[at] += 1
            count = self._words[at]
            fcntl.flock(self._lock, fcntl.LOCK_UN)
            done.append([name, by, count])
            self.log("changed", name, by, count)
            if self.random.random() < self.fatal:
                os.kill(os.getpid(), signal.SIGKILL)
            await self.pause()
        self.fail(by)

    def log(self, what, *told):
        self._log(json.dumps([time.monotonic(), what, *told]))

    def count(self, event):
        if event.kind == "memo":
            self._words[_SERVED + self.worker] += 1

    def issue(self):
        return time.monotonic()

    def has_finished(self, done):
        self.log("finished", done)
        self._words[_CALLS + self.worker] += 1

    def judge(self, kind, answer, issued, sees):
        """Log an answer, to be judged when it is known what had finished; a read of one's own change is judged at once."""
        if isinstance(issued, dict):
            (name,) = issued
            ((by, least),) = issued[name].items() if issued[name] else ((None, 0),)
            if by is not None and answer[name][word_of(by, self.worker)] < least:
                self.log("wrong", f"{kind} of {name}: missed its own change")
            return
        self.log("read", kind, answer, issued, self._who)
        self._words[_CALLS + self.worker] += 1


async def caller(tools, world, ends):
    """One conversation after the other: random calls, some cancelled, some in the body of another call."""
    rng = world.random
    while not ends():
        crowded = rng.random() < 0.7  # mostly all are of one conversation and one user, or nothing is asked twice
        conversation, user = ("1", "ann") if crowded else (rng.choice(worlds.CONVERSATIONS), rng.choice(worlds.USERS))
        with tools.enter(conversation, user):
            for _ in range(rng.randrange(1, 8)):
                task = asyncio.ensure_future(one_call(tools, world, conversation, user))
                if rng.random() < 0.1:
                    await world.pause()
                    task.cancel()
                with contextlib.suppress(asyncio.CancelledError, OSError):
                    await task


async def one_call(tools, world, conversation, user):
    rng = world.random
    name = rng.choice(worlds.NAMES)
    if rng.random() > world.busy:
        kind, scope, function = rng.choice(list(tools.reads()))
        issued = world.issue()
        answer = await function(name)
        world._who = [scope, conversation, user, world.life]
        world.judge(kind, answer, issued, None)
        return
    done = []
    by = ["thread", conversation, None] if conversation else ["process", "", user]
    kind = rng.choice(("write", "write_all", "write_also", "unknown", "unknown_reading"))
    function = getattr(tools, kind)
    arguments = {"write_all": (done,), "write": (name, done), "write_also": (name, done)}
    try:
        await function(*arguments.get(kind, (name, tuple(by), done)))
    finally:
        world.has_finished(done)


# -- a worker, and what may be wrong with it ------------------------------------------------------------------------------


def without_stamps():
    """Believe that nothing ever changes."""
    SharedStamps.fresh = lambda self, cells, snapshot: True


def without_journals():
    """See no change that another process has under way, nor that it died in the middle of one."""
    Membership.look_around = lambda self: True
    real = Membership._join

    def join(self, board):
        with contextlib.suppress(FileNotFoundError):
            for path in (self.folder / "open").iterdir():
                path.unlink()
        return real(self, board)

    Membership._join = join


def raising_at_close_only():
    """Forget what a change touches when it has ended, and not when it begins; nor look at what others have under way."""
    real = SharedStamps.open
    SharedStamps.open = lambda self, raised, held: real(self, (), held)

    def holds(self, asking, cells, snapshot):
        stamps = self.store.stamps
        return stamps.still(asking) and stamps.fresh((*asking, *cells), snapshot)

    Memo.holds = holds


BROKEN = {each.__name__: each for each in (without_stamps, without_journals, raising_at_close_only)}


def work(pipe, folder, worker, life, busy, fatal, broken):
    """Call until told to end.

    Args:
        busy: The part of calls that change something.
        fatal: The part of changes after which the process kills itself, before they have ended.
        broken: The name of what is wrong with the store.
    """
    if broken:
        BROKEN[broken]()
    world = SharedWorld(folder, worker, life, busy, fatal)
    disk = Disk(folder / "store", key=KEY)
    tools = worlds.Guarded(world, Guard(store=disk, on_event=world.count), settle="10ms")

    async def main():
        await asyncio.gather(*(caller(tools, world, pipe.poll) for _ in range(3)))

    asyncio.run(main())
    disk.close()


# -- judging -------------------------------------------------------------------------------------------------------------


def begin(folder):
    (folder / "world").write_bytes(bytes(SIZE))


def calls(folder):
    """Count the calls that have ended, and those of them that were served from memory or the disk."""
    words = memoryview((folder / "world").read_bytes()).cast("Q")
    return sum(words[_CALLS:_SERVED]), sum(words[_SERVED : _SERVED + WORKERS])


def must_see(who, by, life):
    """Tell whether a read must see the changes of somebody."""
    scope, conversation, user, reader = who
    if by == "declared":
        return True
    kind, name, whose = by
    if kind == "thread":
        return name == conversation
    # Changes made in no thread: to those of the same process outside a thread, and to their user's reads, or everyone's.
    return (conversation is None and life == reader) or (scope != "conversation" and whose in (None, user))


def wrong(folder, workers, deaths):
    """Give what was answered wrongly.

    Args:
        workers: The worker of each life.
        deaths: When each life that was killed was certainly over.
    """
    finished, reads, found = [], [], []
    for path in folder.glob("*.log"):
        life, ended = int(path.stem), set()
        told = [json.loads(line) for line in lines(path)]
        for at, what, *rest in told:
            if what == "finished":
                finished += [(at, life, *change) for change in rest[0]]
                ended.update(json.dumps(change) for change in rest[0])
            elif what == "read":
                reads.append((rest[2], rest[0], rest[1], rest[3]))
            elif what == "wrong":
                found += rest
        for _, what, *change in told:
            if what == "changed" and life in deaths and json.dumps(change) not in ended:
                finished.append((deaths[life], life, *change))
    finished.sort(key=lambda change: change[0])
    reads.sort(key=lambda read: read[0])
    least = collections.defaultdict(int)
    known = 0
    for issued, kind, answer, who in reads:
        while known < len(finished) and finished[known][0] < issued:
            _, life, name, by, count = finished[known]
            by = by if by == "declared" else tuple(by)
            least[life, name, by] = max(least[life, name, by], count)
            known += 1
        for (life, name, by), count in least.items():
            if name in answer and must_see(who, by, life):
                seen = answer[name][word_of(by, workers[life])]
                if seen < count:
                    found.append(f"{kind} {who} of {name}: {by} of {life} answered {seen}, {count} had finished")
    return found, len(reads)
