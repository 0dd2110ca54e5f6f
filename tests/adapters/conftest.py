"""What the adapters' tests share: one loop, and other processes."""

import pytest
from adapter_kit import runner
from langgraph.checkpoint.memory import InMemorySaver

from ibidem.resume.tasks import Kept


@pytest.fixture(scope="session", autouse=True)
def _close_the_runner():
    yield
    runner.close()


@pytest.fixture(params=["here", "in another process"])
def anywhere(request, monkeypatch):
    """Runs a test twice: the second time, whatever runs a task again knows only what another process would."""
    plain = Kept.task

    def task(self, configurable):
        found = plain(self, configurable)
        if found.attempt is None or found.is_in(configurable["__pregel_scratchpad"]):
            return found
        for known in (self.tasks, self.under_way):
            for key in [key for key, each in known.items() if each is found]:
                del known[key]
        return plain(self, configurable)

    if request.param != "here":
        monkeypatch.setattr(Kept, "task", task)
    return request.param


@pytest.fixture
def refusing(monkeypatch):
    """A checkpointer that keeps nothing but what is LangGraph's."""
    plain = InMemorySaver.put_writes

    def put_writes(self, config, writes, *args):
        if any(channel == "__ibidem__" for channel, _ in writes):
            raise ValueError("no such channel")
        plain(self, config, writes, *args)

    monkeypatch.setattr(InMemorySaver, "put_writes", put_writes)
