"""The magic `%ibidem`, in a shell of IPython's."""

import gc
import subprocess
import sys
import threading
import weakref

import pytest

pytest.importorskip("IPython", reason="the extra `notebook` is not installed")

from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

import ibidem
from ibidem import Guard, Read
from ibidem.report.living import GUARDS, Living
from ibidem.report.statistics import Stats
from ibidem.report.tables import Entries, Explanation

pytestmark = pytest.mark.filterwarnings("ignore:declared, but no tool:ibidem.report.events.IbidemWarning")


@pytest.fixture(scope="module")
def plain_shell(tmp_path_factory):
    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.ipython_dir = str(tmp_path_factory.mktemp("ipython"))
    main = sys.modules["__main__"]  # a shell puts a module of its own there, and others want the real one
    yield InteractiveShell(config=config)
    sys.modules["__main__"] = main


@pytest.fixture
def shell(plain_shell, monkeypatch):
    """A shell in which no guard of other tests is alive."""
    living = Living()
    monkeypatch.setattr("ibidem.guard.GUARDS", living)
    monkeypatch.setattr("ibidem.notebook.GUARDS", living)
    plain_shell.run_line_magic("load_ext", "ibidem")
    yield plain_shell
    plain_shell.reset()
    plain_shell.run_line_magic("unload_ext", "ibidem")
    gc.collect()


def ask(shell, line=""):
    return shell.run_line_magic("ibidem", line)


def get_order(order_id):
    return f"order {order_id}"


def get_user(user_id):
    return f"user {user_id}"


def used(*keys, conversation="t"):
    """A guard whose tools have been called, and remember."""
    guard = Guard(effects={"get_order": Read("order:{order_id}"), "get_user": Read("user:{user_id}")})
    for function in (get_order, get_user):
        wrapped = ibidem.wrap(function, guard)
        with guard.conversation(conversation):
            for key in keys:
                wrapped(key)
    return guard


def names(answers):
    return [name for name, _ in answers.of]


def test_a_variable_s_guard_answers_alone(shell):
    shell.user_ns["guard"] = used("a", "b", "a")
    assert isinstance(ask(shell, "stats guard"), Stats)
    assert ask(shell, "stats guard").calls == 6
    assert isinstance(ask(shell, "entries guard"), Entries)
    assert len(ask(shell, "entries guard")) == 4
    assert isinstance(ask(shell, "explain guard"), Explanation)
    assert [row.tool for row in ask(shell, "explain guard")] == ["get_order", "get_user"]


def test_without_a_word_every_living_guard_shows_its_stats(shell):
    shell.user_ns.update(first=used("a"), second=used("a", "a"))
    answers = ask(shell)
    assert dict(answers.of)["first"].calls == 2
    assert dict(answers.of)["second"].calls == 4
    assert repr(answers).startswith("first\nibidem: 2 of 2 calls reached a tool")
    assert "2 of 4 calls reached a tool" in repr(answers)


def test_answers_of_several_guards_draw_themselves(shell):
    shell.user_ns.update({"first": used("a"), "second": used("b")})
    page = ask(shell, "entries")._repr_html_()
    assert page.count("<table") >= 2 and "<code>first</code>" in page and "<code>second</code>" in page


def test_a_guard_without_a_variable_is_named_by_what_passes_it(shell):
    shell.user_ns["lookup"] = ibidem.wrap(get_order, Guard(reads=["get_order"]))
    assert names(ask(shell)) == ["the guard of lookup"]


def test_a_guard_that_nothing_names_is_shown_all_the_same(shell):
    guard = used("a")
    assert names(ask(shell)) == ["a guard that no variable holds"]
    assert ask(shell).of[0][1].calls == guard.stats().calls


def test_a_guard_that_a_cell_replaced_is_not_shown_any_more(shell):
    shell.user_ns["guard"] = used("a")
    shell.user_ns["guard"] = used("b")
    assert names(ask(shell)) == ["guard"]


def test_explain_of_something_wrapped_explains_that_alone(shell):
    guard = Guard(reads=["get_order", "get_user"])
    shell.user_ns.update(guard=guard, one=ibidem.wrap(get_order, guard), other=ibidem.wrap(get_user, guard))
    assert [row.tool for row in ask(shell, "explain one")] == ["get_order"]
    assert len(ask(shell, "explain guard")) == 2


def test_a_bound_guard_counts_as_its_guard(shell):
    shell.user_ns["here"] = used("a").bind(conversation="t")
    assert ask(shell, "stats here").calls == 2
    assert "here" in names(ask(shell))


def test_a_variable_that_answers_no_question_hurts_nobody(shell):
    class Hostile:
        def __getattr__(self, name):
            raise RuntimeError("leave me alone")

    shell.user_ns.update(hostile=Hostile(), guard=used("a"))
    assert "guard" in names(ask(shell))


@pytest.mark.parametrize(
    ("line", "left"),
    [
        ("forget guard", []),
        ("forget", []),
        ("forget guard --tool get_order", ["get_user", "get_user"]),
        ("forget guard --conversation t", ["get_order", "get_user"]),
        ("forget guard --conversation 'two words'", ["get_order", "get_user"]),
        ("forget guard --tool get_order --conversation t", ["get_order", "get_user", "get_user"]),
        ("forget guard --tool unknown", ["get_order", "get_order", "get_user", "get_user"]),
    ],
)
def test_forget_drops_what_it_is_told_to(shell, line, left, capsys):
    guard = shell.user_ns["guard"] = used("a")
    for function in (get_order, get_user):
        with guard.conversation("two words"):
            ibidem.wrap(function, guard)("a")
    assert len(guard.entries()) == 4
    assert ask(shell, line) is None
    assert sorted(entry.tool for entry in guard.entries()) == left
    gone = 4 - len(left)
    assert f"guard: {gone} {'result' if gone == 1 else 'results'} forgotten" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("frobnicate", "invalid choice: 'frobnicate'"),
        ("stats nowhere", "there is no variable 'nowhere'; guards that are alive: "),
        ("stats number", "'number' is no guard and passes none; guards that are alive: "),
        (
            "entries --tool get_order",
            "--conversation and --tool are for forgetting: %ibidem forget, not %ibidem entries",
        ),
        ("forget --too get_order", "unrecognized arguments: --too"),
        ("forget --tool 'open", "No closing quotation; %ibidem help"),
        ("stats a b", "unrecognized arguments: b; %ibidem help"),
    ],
)
def test_what_it_does_not_understand_it_says_and_does_nothing(shell, line, message):
    guard = shell.user_ns["guard"] = used("a")
    shell.user_ns["number"] = 5
    with pytest.raises(UsageError) as raised:
        ask(shell, line)
    assert message in str(raised.value)
    assert len(guard.entries()) == 2


def test_a_cell_with_a_mistake_shows_one_line_and_no_traceback(shell, capsys):
    shell.run_cell("%ibidem frobnicate")
    out, err = capsys.readouterr()
    assert "UsageError: argument what: invalid choice" in out + err
    assert "Traceback" not in out + err


def test_help_lists_every_subcommand(shell, capsys):
    assert ask(shell, "help") is None
    text = capsys.readouterr().out
    assert all(
        word in text for word in ("%ibidem", "stats", "entries", "explain", "forget", "--conversation", "--tool")
    )
    assert "--tool" in shell.find_line_magic("ibidem").__doc__


def test_with_no_guard_it_says_how_to_make_one(shell, capsys):
    assert ask(shell) is None
    assert "No guard is alive: make one with ibidem.Guard(...)" in capsys.readouterr().out


def test_its_answer_can_be_kept_in_a_variable(shell):
    shell.user_ns["guard"] = used("a", "a")
    shell.run_cell("found = %ibidem stats guard")
    assert shell.user_ns["found"].memo == 2


def test_unloading_takes_the_magic_away(shell):
    shell.run_line_magic("unload_ext", "ibidem")
    assert shell.find_line_magic("ibidem") is None
    shell.run_line_magic("load_ext", "ibidem")


def test_being_listed_keeps_no_guard_alive():
    guard = Guard()
    assert guard in list(GUARDS)
    gone = weakref.ref(guard)
    del guard
    gc.collect()
    assert gone() is None


def test_guards_are_listed_while_other_threads_make_some():
    living, kept, done = Living(), [], threading.Event()

    class Thing:
        pass

    def add():
        for _ in range(5_000):
            thing = Thing()
            living.add(thing)
            kept.append(thing)
        done.set()

    thread = threading.Thread(target=add)
    thread.start()
    while not done.is_set():
        list(living)
    thread.join()
    assert list(living) == kept


def test_import_ibidem_does_not_import_ipython():
    script = "import sys, ibidem; ibidem.load_ipython_extension; print('IPython' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "False\n"
    )
