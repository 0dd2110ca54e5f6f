"""What a plan looks like: text, rich, HTML, Mermaid; nothing of what it shows is obeyed."""

import asyncio
import sys
import types

import pytest

from ibidem import Guard, Plan, Pure, Read, Write
from ibidem.plan import drawing
from ibidem.testing import run_shuffled

HOSTILE = '<script>alert(1)</script>\x1b[31m"`]-->'


async def wait(seconds, x=None):
    await asyncio.sleep(seconds)
    return seconds


async def fail(x=None):
    raise OSError(HOSTILE)


def a_plan():
    plan = Plan()
    first = plan.call(wait, seconds=1)
    plan.call(wait, seconds=5, x=first)
    slow = plan.call(wait, seconds=3)
    plan.call(wait, seconds=1, x=slow)
    plan.call(fail, x=slow)
    plan.call(wait, seconds=1).when(first, "eq", HOSTILE)
    return plan


def ran():
    plan = a_plan()
    run_shuffled(plan.arun(Guard(effects={"wait": Pure(), "fail": Read()})), 1)
    return plan


def test_a_plan_that_has_not_run_says_what_waits_for_what():
    text = str(a_plan())
    assert text.splitlines()[0] == "a plan of 6 steps"
    assert "wait_2  wait  uses $wait" in text
    assert "\x1b" not in text
    page = a_plan()._repr_html_()
    assert "not run yet" in page
    assert "<script" not in page


def test_a_plan_that_has_run_is_a_waterfall_with_its_critical_path():
    plan = ran()
    assert plan.result.critical_path() == ["wait", "wait_2"]
    lines = str(plan).splitlines()
    assert [line[0] for line in lines[1:3]] == ["*", "*"]
    assert lines[2].index("█") > lines[1].index("█")
    assert "skipped" in lines[6]
    page = plan._repr_html_()
    assert page.count("&#9679;") == 3
    assert "<script" not in page
    assert "\x1b" not in page


def test_rich_draws_the_same_words():
    rich = pytest.importorskip("rich.console")
    plan = ran()
    console = rich.Console(
        width=200, record=True, file=types.SimpleNamespace(write=lambda text: None, flush=lambda: None)
    )
    console.print(plan)
    assert [line.rstrip() for line in console.export_text(clear=False).splitlines()] == str(plan).splitlines()
    bold = [line for line in console.export_text(styles=True).splitlines() if "\x1b[1" in line]
    assert len(bold) == 1, "the headline"


def test_rich_keeps_a_step_on_its_line():
    rich = pytest.importorskip("rich.console")
    plan = ran()
    console = rich.Console(
        width=70, record=True, file=types.SimpleNamespace(write=lambda text: None, flush=lambda: None)
    )
    console.print(plan)
    assert len(console.export_text().splitlines()) == len(str(plan).splitlines())


def test_a_plan_is_a_mermaid_flowchart_with_hazards_dotted():
    def change(x=None): ...

    plan = Plan()
    read = plan.call(wait, seconds=1)
    plan.call(wait, seconds=2, x=read)
    plan.call(change).when(read, "eq", HOSTILE)
    drawn = plan.to_mermaid(Guard(effects={"wait": Read("x"), "change": Write("x")}))
    assert "s0 --> s1" in drawn
    assert "s0 --> s2" in drawn
    assert "s1 -.-> s2" in drawn
    assert "<script" not in drawn
    assert drawn.count('"') == 6


def test_a_notebook_is_shown_progress_while_a_plan_runs(monkeypatch):
    shown = []

    class Handle:
        def update(self, drawn):
            shown.append(drawn._repr_html_())

    def display(drawn, display_id):
        shown.append(drawn._repr_html_())
        return Handle()

    shell = types.SimpleNamespace(kernel=1)
    fake = types.SimpleNamespace(get_ipython=lambda: shell, display=types.SimpleNamespace(display=display))
    monkeypatch.setitem(sys.modules, "IPython", fake)
    monkeypatch.setattr(drawing, "_PATIENCE", 0)
    monkeypatch.setattr(drawing, "_OFTEN", 0)
    ran()
    assert "0 of 6 steps have ended" in shown[0]
    assert "running" in shown[1]
    assert "6 of 6 steps have ended" in shown[-1]
    assert "critical path" not in "".join(shown), "nothing is marked before the plan has ended"


def test_outside_a_notebook_nothing_is_shown(capsys):
    ran()
    assert capsys.readouterr() == ("", "")
