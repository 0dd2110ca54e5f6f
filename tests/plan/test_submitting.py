"""Plans that are handed in by anybody: what a plan may be given, what it is told, and how much of both (no framework is needed)."""

import functools
import json
from typing import Any

import pytest

from ibidem import Guard, Plan, PlanError
from ibidem.plan.submitting import Submissions


def submissions(*functions, **more):
    return Submissions(functions, Guard(reads=["*"]), **more)


def refused(document, *functions):
    with pytest.raises(PlanError) as caught:
        Plan.from_json(document, functions).check()
    return str(caught.value)


class Unsayable:
    def __repr__(self):
        raise ValueError("no words")


CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)
DEEP = functools.reduce(lambda inner, _: [inner], range(100_000), [])


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({(1, 2): 3}, "{(1, 2): 3}"),
        (CIRCLE, "[[...]]"),
        ("half \ud800", "half \ud800"),
        (DEEP, None),
        ([Unsayable()], None),
        (10**5000, None),
    ],
    ids=["tuple", "circle", "surrogate", "deep", "unsayable", "digits"],
)
def test_whatever_a_step_gave_the_plan_is_answered(value, told):
    """What has run has run: without an answer it would be submitted again."""

    def get():
        return value

    def other():
        return "é"

    steps = [{"id": "a", "tool": "get"}, {"id": "b", "tool": "other"}]
    content = submissions(get, other).handle({"steps": steps})
    content.encode()
    found = json.loads(content)
    assert found["b"] == "é"
    if told is None:
        assert "cannot be written down" in found["a"]["error"]["message"]
    else:
        assert found["a"] == told


HUGE = "k" * 1_000_000


@pytest.mark.parametrize(
    "step",
    [
        {"id": "a", "tool": HUGE},
        {"id": HUGE, "tool": "get"},
        {"id": "a", "tool": "get", "args": {HUGE: 1}},
        {"id": "a", "tool": "get", "args": {"x": f"${HUGE}"}},
        {"id": "a", "tool": "get", "args": {"x": f"$b.{'k' * 400}"}},
        {"id": "a", "tool": "get", "after": [HUGE]},
        {"id": "a", "tool": "get", "when": {"ref": "$a", "op": HUGE}},
        {"id": "a", "tool": "get", "args": {"x": {f"${HUGE}": 1}}},
        {"id": "a", "tool": "get", HUGE: 1},
    ],
)
def test_what_is_said_of_a_mistake_has_bounds(step):
    def get(x=None):
        return x

    said = refused({"steps": [step]}, get)
    assert len(said) < 2_000
    assert said.startswith("the plan cannot run, and nothing has run:\n- step ")


def test_a_name_that_is_too_long_does_not_hide_how_to_mend_it():
    def get(city):
        return city

    said = refused({"steps": [{"id": "a", "tool": "get", "args": {HUGE: 1}}]}, get)
    assert "it is one of: city" in said


def test_a_text_of_results_of_texts_does_not_fill_the_memory():
    def echo(x):
        return x

    steps = [{"id": "s0", "tool": "echo", "args": {"x": "x" * 100}}]
    steps += [{"id": f"s{n}", "tool": "echo", "args": {"x": {"$text": [f"$s{n - 1}"] * 100}}} for n in range(1, 20)]
    found = json.loads(submissions(echo).handle({"steps": steps, "return": ["s3", "s4"]}))
    assert found["s3"]["error"]["kind"] == "invalid_arguments"
    assert "more than 1,000,000 characters" in found["s3"]["error"]["message"]
    assert found["s4"]["error"]["kind"] == "upstream_failed"


def test_a_step_has_a_limited_number_of_references():
    def echo(x):
        return x

    def steps(count):
        return {"steps": [{"id": "a", "tool": "echo", "args": {"x": 1}},
                          {"id": "b", "tool": "echo", "args": {"x": ["$a"] * count}}]}  # fmt: skip

    assert json.loads(submissions(echo).handle(steps(200)))["b"] == [1] * 200
    with pytest.raises(PlanError, match="step 'b': it has more than 200 references"):
        submissions(echo).handle(steps(201))
