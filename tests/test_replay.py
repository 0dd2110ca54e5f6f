"""Recorded and synthetic conversations through a real graph: nothing wrong is ever answered, and the control is caught."""

import random
import sys

import pytest

from benches import bench

pytest.importorskip("rich", reason="the replay draws with rich: pip install 'ibidem[bench]'")

RECORDED = ("tau2_retail.jsonl", "tau_airline.jsonl")
MODES = pytest.mark.parametrize(
    ("sync", "raised"),
    [(False, False), (True, False), (False, True), (True, True)],
    ids=["async", "sync", "async, errors raised", "sync, errors raised"],
)


replay, stage, split, recordings, oracles, synthetic, policies = map(
    bench, ("replay", "_stage", "_split", "_recordings", "_oracles", "synthetic", "policies")
)


@pytest.fixture(scope="session")
def invented(tmp_path_factory):
    """Conversations of the synthetic world."""
    path = tmp_path_factory.mktemp("traces") / "synthetic.jsonl"
    return recordings.load(synthetic.write(path, seed=1, conversations=8))


@pytest.fixture(scope="session")
def mixed(tmp_path_factory):
    """Conversations whose agent often sends a write and reads of the same in one message."""
    path = tmp_path_factory.mktemp("traces") / "mixed.jsonl"
    return recordings.load(synthetic.write(path, seed=2, conversations=4, mixed=0.7))


def recorded(name):
    """The conversations of a shared file in which a call is repeated, and as many that only run."""
    path = replay.TRACES / name
    if not path.exists():
        pytest.skip(f"../shared/traces/{name} is absent")
    found = recordings.load(path)
    repeating = [c for c in found if len({call.key for call in c.calls}) < len(c.calls)]
    return repeating + recordings.sample([c for c in found if c not in repeating], 10, 1)


def play(conversations, guard, *, sync=False, raised=False, together=1):
    return replay.play(conversations, stage.Setting(guard, sync, raised, together))


def faults(row):
    return {"wrong": row.wrong, "suppressed": row.suppressed, "stray": row.stray, "disordered": row.disordered}


NONE = {"wrong": [], "suppressed": 0, "stray": 0, "disordered": 0}


@MODES
def test_without_a_guard_the_replay_gives_exactly_what_was_recorded(invented, sync, raised):
    row = play(invented[:3], stage.NOTHING, sync=sync, raised=raised)
    assert faults(row) == NONE
    assert row.reached == row.calls > 0


@MODES
@pytest.mark.parametrize("guard", [stage.READS, stage.DECLARED])
def test_nothing_wrong_is_answered_where_a_message_writes_and_reads_the_same(mixed, guard, sync, raised):
    row = play(mixed, guard, sync=sync, raised=raised)
    assert faults(row) == NONE
    assert row.saved > 0


def test_without_order_calls_of_a_message_that_touch_the_same_are_seen_to_run_at_once(mixed, monkeypatch):
    """The negative control: the count of what is out of order is not 0 by itself."""
    from ibidem.langgraph import node

    monkeypatch.setattr(node, "matters", lambda twins, calls: False)
    assert play(mixed, stage.DECLARED).disordered > 0


@pytest.mark.parametrize("sync", [False, True], ids=["async", "sync"])
@pytest.mark.parametrize("guard", [stage.READS, stage.DECLARED])
def test_nothing_wrong_is_answered_to_interleaved_conversations(mixed, guard, sync):
    row = play(mixed, guard, sync=sync, together=3)
    assert faults(row) == NONE
    assert row.saved > 0


@pytest.mark.parametrize("sync", [False, True], ids=["async", "sync"])
def test_declared_resources_save_what_forgetting_everything_does_not(invented, sync):
    alone, declared = (play(invented, guard, sync=sync) for guard in (stage.READS, stage.DECLARED))
    assert faults(alone) == faults(declared) == NONE
    assert 0 < alone.saved <= 0.5 * declared.untouched
    assert declared.saved >= 0.95 * declared.untouched


@pytest.mark.parametrize("guard", [stage.READS, stage.DECLARED])
@pytest.mark.parametrize("name", RECORDED)
def test_nothing_wrong_is_answered_to_recorded_agents(name, guard):
    row = play(recorded(name), guard)
    assert faults(row) == NONE
    assert row.saved > 0


@pytest.mark.parametrize("guard", [stage.READS, stage.DECLARED])
@pytest.mark.parametrize("name", RECORDED)
def test_nothing_wrong_is_answered_to_recorded_agents_whose_tools_block_and_raise(name, guard):
    assert faults(play(recorded(name), guard, sync=True, raised=True)) == NONE


def test_conversations_that_change_their_process_are_answered_rightly_and_save_as_much(tmp_path):
    # Without messages that write and read the same: what such a read saves depends on which of both ran first.
    told = recordings.load(synthetic.write(tmp_path / "ordered.jsonl", seed=3, conversations=3, mixed=0))
    row = replay.play(told, stage.Setting(stage.DECLARED, split=True))
    assert faults(row) == NONE
    assert row.saved == play(told, stage.DECLARED, sync=True).saved > 0


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_agents_that_change_their_process_are_answered_rightly_and_save_as_much(name):
    told = [c for c in recorded(name) if len({call.key for call in c.calls}) < len(c.calls)][:6]
    row = replay.play(told, stage.Setting(stage.DECLARED, split=True))
    assert faults(row) == NONE
    assert row.saved == play(told, stage.DECLARED, sync=True).saved > 0


def test_a_conversation_is_cut_into_two_parts_that_make_it_up():
    told = conversation([call("a", "read"), call("b", "read")], [call("c", "read")], [call("d", "read")])
    rng, places = random.Random(1), set()
    for _ in range(50):
        first, rest = split.cut(told, rng)
        assert first.messages + rest.messages == told.messages
        places.add(len(first.messages))
    assert places == {1, 2}
    assert split.cut(conversation([call("a", "read")]), rng)[0].messages == []


def test_the_control_is_caught_answering_recorded_agents_wrongly():
    assert play(recorded("tau2_retail.jsonl"), stage.CONTROL).wrong


def test_the_control_is_caught_suppressing_writes_of_recorded_agents():
    assert play(recorded("tau_airline.jsonl"), stage.CONTROL).suppressed


@pytest.mark.parametrize("sync", [False, True], ids=["async", "sync"])
def test_the_control_is_caught_in_the_synthetic_world(invented, sync):
    assert play(invented[:3], stage.CONTROL, sync=sync).wrong


@pytest.mark.parametrize("name", RECORDED)
def test_every_recorded_tool_is_declared_as_what_it_is(name):
    for conversation in recorded(name):
        policy = policies.POLICIES[conversation.domain]
        for call in conversation.calls:
            assert (type(policy[call.name]).__name__ == "Write") == (call.kind == "write")


def test_one_seed_makes_one_file(tmp_path):
    one, same, other = (tmp_path / name for name in ("one", "same", "other"))
    for path, seed in ((one, 3), (same, 3), (other, 4)):
        synthetic.write(path, seed=seed, conversations=2)
    assert one.read_bytes() == same.read_bytes() != other.read_bytes()


def call(name, kind, result="", **args):
    told = {"id": name, "name": name, "args": args, "result": result, "is_error": False, "kind": kind}
    return recordings.Call.read(told)


def conversation(*messages):
    return recordings.Conversation("c", "synthetic", [list(messages)])


def test_the_judge_sees_a_suppressed_write_a_stray_run_and_a_broken_order():
    write, check = call("comment_ticket", "write", ticket_id="T1"), call("get_ticket", "read", ticket_id="T1")
    played = stage.Played(conversation([write, check]), policies.SYNTHETIC)
    played.speak()
    position, _ = played.arrive("get_ticket", {"ticket_id": "T1"})
    played.leave(position)
    assert played.arrive("get_ticket", {"ticket_id": "T1"}) == (-1, None)
    position, _ = played.arrive("comment_ticket", {"ticket_id": "T1"})
    played.leave(position)
    played.speak()
    assert (played.stray, played.disordered, played.suppressed) == (1, 1, 0)

    played = stage.Played(conversation([write]), policies.SYNTHETIC)
    played.speak()
    played.speak()
    assert played.suppressed == 1


def test_the_judge_sees_answers_that_differ_or_are_missing():
    from langchain_core.messages import ToolMessage

    read = call("get_ticket", "read", "fresh", ticket_id="T1")
    played = stage.Played(conversation([read]), {})
    said = played.speak()
    right = ToolMessage("fresh", tool_call_id=read.id)
    assert played.wrong([said, right], raised=False) == []
    assert len(played.wrong([said], raised=False)) == 1
    assert len(played.wrong([said, right, right], raised=False)) == 1
    assert len(played.wrong([said, ToolMessage("stale", tool_call_id=read.id)], raised=False)) == 1
    assert len(played.wrong([said, ToolMessage("fresh", tool_call_id="another")], raised=False)) == 1
    assert len(played.wrong([said, ToolMessage("fresh", tool_call_id=read.id, status="error")], raised=False)) == 1


def test_the_oracles_count_what_could_be_saved():
    read, other = call("get_ticket", "read", "a", ticket_id="T1"), call("get_ticket", "read", "b", ticket_id="T2")
    after = call("get_ticket", "read", "changed", ticket_id="T1")
    write, unknown = call("comment_ticket", "write", ticket_id="T1"), call("export_books", "write")
    told = conversation([read, other, read], [write], [after, other], [unknown], [other])
    # The same result: read, other, other. Without a conflicting write before it: read, other.
    assert oracles.oracles(told, policies.SYNTHETIC, raised=False) == (3, 2)
    assert oracles.oracles(told, {}, raised=False) == (3, 0)


def test_overlap_is_what_the_table_of_the_core_says():
    from ibidem.core.resources import Resource, overlap

    paths = [(), ("order",), ("order", "1"), ("order", "1", "items"), ("order", "2"), ("user",)]
    places = [(path, below) for path in paths for below in (False, True) if path or below]
    for one in places:
        for two in places:
            assert oracles.overlapping([one], [two]) == overlap([Resource(*one)], [Resource(*two)]), (one, two)


def test_absent_recordings_are_said_and_the_synthetic_file_is_played(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(replay, "TRACES", tmp_path)
    monkeypatch.setattr(synthetic, "CACHE", tmp_path)
    monkeypatch.setattr(sys, "argv", ["replay.py", "--limit", "2"])
    assert replay.main() == 0
    shown = capsys.readouterr().out
    assert "No recordings" in shown
    assert "synthetic-1.jsonl, 2 conversations" in shown


def test_a_guard_that_answers_wrongly_fails_the_run(monkeypatch, capsys, tmp_path):
    path = synthetic.write(tmp_path / "few.jsonl", conversations=2)
    monkeypatch.setattr(sys, "argv", ["replay.py", str(path)])
    build = stage.build
    naive = stage.Setting(stage.CONTROL)
    monkeypatch.setattr(replay, "build", lambda conversations, setting: build(conversations, naive))
    monkeypatch.setattr(replay, "Played", lambda told, policy, setting: stage.Played(told, policy, naive))
    assert replay.main() == 1
    assert "wrong under" in capsys.readouterr().out
