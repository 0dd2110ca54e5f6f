"""The test kit: what ibidem tests itself with, for those who write stores, layers and tools.

- `StoreSuite`: what any store must pass, as a class to inherit from.
- `run_shuffled`: runs a coroutine in a controlled, random order and in virtual time; a seed gives the same run again.
- `Clock`: a clock that stands until it is told to move.
- `FaultServer`: an HTTP server on loopback that fails as it is told, and counts what it has done.
- `MessagesServer`: Anthropic's Messages API on loopback, which plays a script of `Reply`s and checks every request.

It needs no test framework; pytest finds the tests of a subclass by their names.
"""

from ibidem.core.resources import read_cells, write_cells
from ibidem.testing.faulty import FaultServer
from ibidem.testing.messages import MessagesServer, broken_rules
from ibidem.testing.replies import Reply, server_use, text, use
from ibidem.testing.schedules import Clock, ShuffledLoop, Stuck, eager_switching, in_threads, run_shuffled
from ibidem.testing.stores import OVERLAPS, READ, StoreSuite, a_key, an_entry, resources

__all__ = [
    "OVERLAPS",
    "READ",
    "Clock",
    "FaultServer",
    "MessagesServer",
    "Reply",
    "ShuffledLoop",
    "StoreSuite",
    "Stuck",
    "a_key",
    "an_entry",
    "broken_rules",
    "eager_switching",
    "in_threads",
    "read_cells",
    "resources",
    "run_shuffled",
    "server_use",
    "text",
    "use",
    "write_cells",
]
