"""What the tests of the disk store share: two agents on one folder, and a world that they read and change.

Two `Disk` objects of one folder are to each other what two processes are: each has a journal, locks and memory of its own.
"""

import contextlib
import logging
import os
import shutil
import subprocess
import sys
import textwrap
import time

from ibidem import Guard, Read, Write, wrap
from ibidem.stores.disk import Disk

KEY = "a key of the tests, long enough"
SOAK = bool(os.environ.get("IBIDEM_SOAK"))


def delete(folder):
    """Delete a folder that is in use: SQLite makes and deletes files in it at the same moment."""
    while folder.exists():
        with contextlib.suppress(OSError):
            shutil.rmtree(folder)
            break  # whoever makes it anew has noticed


class World:
    """What tools read and change."""

    def __init__(self):
        self.values = {}
        self.reads = 0


class Agent:
    """Reads and changes a world through a store of its own."""

    def __init__(self, world, folder, conversation="1", **options):
        self.world = world
        self.store = Disk(folder, **{"key": KEY, **options})
        self.guard = Guard(store=self.store)
        self.slowest = 0.0

        def read(name):
            world.reads += 1
            return world.values.get(name, 0)

        def write(name):
            world.values[name] = world.values.get(name, 0) + 1

        here = self.guard.bind(conversation=conversation)
        self._read = wrap(Read("item:{name}", ttl=None, identity="read", scope="shared")(read), here)
        self._write = wrap(Write("item:{name}")(write), here)

    def read(self, name="x"):
        return self._timed(self._read, name)

    def write(self, name="x"):
        return self._timed(self._write, name)

    def _timed(self, function, name):
        began = time.perf_counter()
        try:
            return function(name)
        finally:
            self.slowest = max(self.slowest, time.perf_counter() - began)

    def close(self):
        self.store.close(0.2)


@contextlib.contextmanager
def agents(folder, count=1, **options):
    """Give a world and agents that share a folder."""
    world, made = World(), []
    try:
        for _ in range(count):
            made.append(Agent(world, folder, **options))
        yield (world, *made)
    finally:
        for agent in made:
            agent.close()


class Warnings(logging.Handler):
    """What was warned of while the block ran.

    Args:
        of: A folder; what stores elsewhere say, which earlier tests left behind, does not count. None: everything does.
    """

    def __init__(self, of=None):
        super().__init__(logging.WARNING)
        self.texts = []
        self._of = "" if of is None else str(of)

    def emit(self, record):
        if self._of in record.getMessage():
            self.texts.append(record.getMessage())

    def __enter__(self):
        logging.getLogger("ibidem").addHandler(self)
        return self

    def __exit__(self, *_):
        logging.getLogger("ibidem").removeHandler(self)


@contextlib.contextmanager
def process(script, *arguments):
    """Run a script in another process until the block ends; the block begins when it has printed a line."""
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)], stdout=subprocess.PIPE, text=True
    )
    try:
        child.first = child.stdout.readline().strip()
        assert child.first, "the process has ended before it could do what it is for"
        yield child
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def run(script, *arguments, **environment):
    """Run a script in another process to its end, and give what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def files(folder):
    """Give the contents of every file below a folder, by name."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
