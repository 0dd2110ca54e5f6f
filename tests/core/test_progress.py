"""Progress shows itself only where a person looks, only after a while, and only if it can."""

import io
import sys
import types

import pytest

from ibidem.report.progress import track


class Clock:
    """Goes on by a step each time it is asked."""

    def __init__(self, step):
        self.step, self.now = step, 0.0

    def __call__(self):
        self.now += self.step
        return self.now


class Bars:
    """Stands for the module tqdm and writes down what is drawn."""

    def __init__(self):
        self.made, self.updates, self.closed = [], 0, 0
        self.module = types.ModuleType("tqdm")
        self.module.tqdm = self._make

    def _make(self, **options):
        self.made.append(options)
        return self

    def update(self, count):
        self.updates += count

    def close(self):
        self.closed += 1


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def bars(monkeypatch):
    bars = Bars()
    monkeypatch.setitem(sys.modules, "tqdm", bars.module)
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    return bars


def in_a_terminal(monkeypatch):
    """Not a fixture: between setting up and the test itself, pytest sets standard error anew."""
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    return terminal


def where_nobody_looks(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())


def in_a_shell(monkeypatch, **attributes):
    module = types.ModuleType("IPython")
    module.get_ipython = lambda: types.SimpleNamespace(**attributes)
    monkeypatch.setitem(sys.modules, "IPython", module)


def test_what_takes_long_has_a_bar_in_a_terminal(bars, monkeypatch):
    terminal = in_a_terminal(monkeypatch)
    assert list(track(range(10), 10, "sweeping", clock=Clock(0.3))) == list(range(10))
    (made,) = bars.made
    assert (made["total"], made["desc"], made["leave"], made["file"]) == (10, "sweeping", False, terminal)
    assert made["initial"] + bars.updates == 10 and 0 < made["initial"] < 10
    assert bars.closed == 1


def test_what_is_quick_has_none(bars, monkeypatch):
    in_a_terminal(monkeypatch)
    assert list(track(range(10), 10, "sweeping", clock=Clock(0.05))) == list(range(10))
    assert bars.made == []


def test_where_nobody_looks_there_is_none(bars, monkeypatch):
    where_nobody_looks(monkeypatch)
    assert list(track(range(10), 10, "sweeping", clock=Clock(0.3))) == list(range(10))
    assert bars.made == []


def test_a_notebook_is_looked_at(bars, monkeypatch):
    where_nobody_looks(monkeypatch)
    in_a_shell(monkeypatch, kernel=object())
    list(track(range(10), None, "sweeping", clock=Clock(0.3)))
    assert bars.made[0]["total"] is None


def test_a_shell_without_a_kernel_is_no_notebook(bars, monkeypatch):
    where_nobody_looks(monkeypatch)
    in_a_shell(monkeypatch)
    list(track(range(10), 10, "sweeping", clock=Clock(0.3)))
    assert bars.made == []


def test_without_standard_error_nothing_fails(bars, monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    assert list(track(range(10), 10, "sweeping", clock=Clock(0.3))) == list(range(10))


def test_without_tqdm_it_is_silent_and_asks_once(monkeypatch):
    terminal = in_a_terminal(monkeypatch)
    asked = []

    class Missing:
        def find_spec(self, name, path=None, target=None):
            if name == "tqdm":
                asked.append(name)

    monkeypatch.delitem(sys.modules, "tqdm", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Missing()])
    assert list(track(range(10), 10, "sweeping", clock=Clock(0.3))) == list(range(10))
    assert terminal.getvalue() == ""
    assert asked == ["tqdm"]


def test_the_bar_goes_when_whoever_takes_the_items_stops(bars, monkeypatch):
    in_a_terminal(monkeypatch)
    items = track(range(100), 100, "sweeping", clock=Clock(0.3))
    for _ in range(10):
        next(items)
    items.close()
    assert bars.closed == 1


def test_the_bar_goes_when_the_items_fail(bars, monkeypatch):
    in_a_terminal(monkeypatch)

    def failing():
        yield from range(10)
        raise KeyError("no")

    with pytest.raises(KeyError):
        list(track(failing(), 100, "sweeping", clock=Clock(0.3)))
    assert bars.closed == 1


def test_a_real_bar_says_what_is_being_done(monkeypatch):
    terminal = in_a_terminal(monkeypatch)
    pytest.importorskip("tqdm", reason="the extra `notebook` is not installed")
    list(track(range(10), 10, "sweeping", clock=Clock(0.3)))
    assert "sweeping" in terminal.getvalue() and "/10" in terminal.getvalue()
