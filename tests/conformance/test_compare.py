"""What the comparison of conformance runs must notice, and what it must let be."""

import pytest
from compare import NOTHING_WRAPPED, Outcomes, compare
from suites import Exempt, Suite


def suite(*exempt):
    return Suite("s", "", ("tests",), {"tools": ("reads",)}, at_least=1, reached={"tools": 1}, exempt=exempt)


def outcomes(calls=1, wrapped=1, warnings=None, **tests):
    ended = {f"t.py::{name}": (ending, "assert 1 == 2" if ending == "failed" else "") for name, ending in tests.items()}
    return Outcomes(ended, dict.fromkeys(ended, calls), wrapped, 0, warnings or {})


def verdict(before, after, *exempt):
    return compare(suite(*exempt), "tools", "reads", before, after)


def test_the_same_passes_are_no_fault():
    before = outcomes(a="passed", b="failed", c="skipped")
    assert not verdict(before, before).faults


@pytest.mark.parametrize("ending", ["failed", "error", "skipped", "xfailed"])
def test_a_pass_that_is_lost_is_a_fault(ending):
    assert len(verdict(outcomes(a="passed", b="passed"), outcomes(a="passed", b=ending)).differences) == 1


def test_a_test_that_did_not_run_is_a_fault():
    assert "missing: t.py::b" in verdict(outcomes(a="passed", b="passed"), outcomes(a="passed")).differences[0]


def test_a_pass_that_is_won_is_only_told():
    found = verdict(outcomes(a="passed", b="failed"), outcomes(a="passed", b="passed"))
    assert found.gained == ["t.py::b"]
    assert not found.faults


def test_an_exempted_test_may_fail_as_foreseen_and_with_any_parameter():
    found = verdict(
        outcomes(a="passed", **{"b[1]": "passed"}),
        outcomes(a="passed", **{"b[1]": "failed"}),
        Exempt("t.py::b", "counts", "1 == 2"),
    )
    assert found.exempted == ["t.py::b[1]: counts"]
    assert not found.faults


def test_an_exempted_test_that_passes_or_fails_otherwise_is_a_fault():
    before, rule = outcomes(a="passed", b="passed"), Exempt("t.py::b", "counts", "1 == 3")
    assert "out of date" in verdict(before, before, rule).differences[0]
    assert "not as it is exempted for" in verdict(before, outcomes(a="passed", b="failed"), rule).differences[0]


def test_an_empty_comparison_is_a_fault():
    before = outcomes(a="passed")
    assert verdict(before, outcomes(a="passed", wrapped=0)).empty == [NOTHING_WRAPPED]
    assert verdict(before, outcomes(a="passed", calls=0)).empty
    assert verdict(outcomes(a="failed"), before).empty


def test_a_warning_from_our_code_is_a_fault():
    assert verdict(outcomes(a="passed"), outcomes(a="passed", warnings={"t.py::a": "old"})).differences
