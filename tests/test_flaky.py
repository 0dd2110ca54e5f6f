"""The benchmark of turns saved: transient faults below the model cost it turns, a retry saves them, nothing goes wrong."""

import pytest

from benches import bench

pytest.importorskip("rich", reason="the benchmark draws with rich: pip install 'ibidem[bench]'")

flaky, synthetic, recordings = map(bench, ("flaky", "synthetic", "_recordings"))
load, sample = recordings.load, recordings.sample
TRACES = {path.name: path for path in flaky.TRACES.glob("*.jsonl")}


@pytest.fixture
def conversations(tmp_path):
    return load(synthetic.write(tmp_path / "some.jsonl", seed=5, conversations=3))


def test_a_retry_saves_turns_and_nothing_goes_wrong(conversations):
    nothing, retry = (flaky.play(conversations, way, share=0.15) for way in (flaky.NOTHING, flaky.RETRY))
    assert (nothing.bad, retry.bad) == (0, 0)
    assert nothing.faults > 10
    assert nothing.turns - nothing.repeats == retry.turns - retry.repeats > 0
    assert retry.repeats < nothing.repeats / 2


@pytest.mark.parametrize("name", sorted(TRACES) or [pytest.param("", marks=pytest.mark.skip("no recordings"))])
def test_so_it_is_with_recorded_agents(name):
    recorded = sample(load(TRACES[name]), 12, seed=2)
    nothing, retry = (flaky.play(recorded, way, share=0.2) for way in (flaky.NOTHING, flaky.RETRY))
    assert (nothing.bad, retry.bad) == (0, 0)
    assert retry.repeats < nothing.repeats


def test_a_write_that_ran_twice_is_seen(conversations, monkeypatch):
    """The negative control: a failure that comes when the write has taken effect, and a model that repeats it."""
    answer = flaky.Played.answer

    late = set()

    def answers_late(self, name, args):
        result = answer(self, name, args)
        if name == "comment_ticket" and self.conversation.id not in late:
            late.add(self.conversation.id)
            raise TimeoutError
        return result

    monkeypatch.setattr(flaky.Played, "answer", answers_late)
    assert flaky.play(conversations, flaky.NOTHING, share=0.0).twice > 0


def test_a_wrong_answer_is_seen(conversations, monkeypatch):
    answer = flaky.Played.answer
    monkeypatch.setattr(flaky.Played, "answer", lambda self, name, args: answer(self, name, args) + "!")
    row = flaky.play(conversations[:1], flaky.RETRY, share=0.0)
    assert len(row.wrong) == row.calls > 0
