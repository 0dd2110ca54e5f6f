"""Processes that tests start, talk to, and kill: forked from a server that has everything imported, so one takes 20 ms."""

import contextlib
import multiprocessing
import os
import time

SOAK = bool(os.environ.get("IBIDEM_SOAK"))
KEY = "a key of the tests, long enough"

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    ["ibidem", "ibidem.stores.disk", "ibidem.testing", "diskcache", "pytest", "langgraph.errors"]
)


class Child:
    """A process that runs `body(pipe, *arguments)`; the pipe takes and gives what can be pickled."""

    def __init__(self, body, *arguments):
        self._pipe, theirs = _context.Pipe()
        self._process = _context.Process(target=body, args=(theirs, *arguments), daemon=True)
        self._process.start()
        theirs.close()

    @property
    def pid(self):
        return self._process.pid

    def tell(self, what):
        self._pipe.send(what)

    def hear(self, timeout=60):
        """Give what it says next."""
        assert self._pipe.poll(timeout), "the process says nothing"
        return self._pipe.recv()

    def ask(self, what, timeout=60):
        self.tell(what)
        return self.hear(timeout)

    @property
    def sentinel(self):
        """What `multiprocessing.connection.wait` waits for its end by."""
        return self._process.sentinel

    def kill(self):
        """End it with SIGKILL, and give the time at which it was certainly dead."""
        self._process.kill()
        self._process.join()
        self._pipe.close()
        return time.monotonic()

    def wait(self, timeout=60):
        """Wait until it has ended, however it ended."""
        self._process.join(timeout)
        assert self._process.exitcode is not None, "the process does not end"

    def join(self, timeout=60):
        """Wait until it has ended by itself."""
        self._process.join(timeout)
        assert self._process.exitcode == 0, f"the process ended with {self._process.exitcode}"


@contextlib.contextmanager
def children(body, *each):
    """Start a process for each tuple of arguments; kill what is left of them in the end."""
    started = []
    try:
        for arguments in each:
            started.append(Child(body, *arguments))
        yield started
    finally:
        for child in started:
            with contextlib.suppress(OSError):
                child.kill()


class Log:
    """Lines that outlive the process that wrote them: each is one write, so a killed process leaves whole ones."""

    def __init__(self, path):
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def __call__(self, line):
        os.write(self._file, line.encode() + b"\n")


def lines(path):
    """Give the complete lines of a log."""
    with contextlib.suppress(FileNotFoundError):
        return path.read_text().split("\n")[:-1]
    return []
