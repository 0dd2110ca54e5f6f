"""Set what became of each test at baseline against what became of it through ibidem."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from suites import Exempt, Suite

NOTHING_WRAPPED = "nothing was wrapped"


@dataclass(frozen=True)
class Outcomes:
    """What a run of a suite wrote down."""

    outcomes: dict[str, tuple[str, str]]
    """How each test ended, and what it said."""
    calls: dict[str, int]
    wrapped: int
    replays: int
    """How many repeats were answered from the memo."""
    warnings: dict[str, str]
    """What ibidem's own code made others warn of, by test."""

    @property
    def passed(self) -> set[str]:
        return {test for test, (ending, _) in self.outcomes.items() if ending == "passed"}

    @property
    def reached(self) -> int:
        """How many tests sent at least one call through a guard."""
        return sum(count > 0 for count in self.calls.values())


@dataclass
class Verdict:
    """What a comparison found."""

    differences: list[str] = field(default_factory=list)
    """Passes at baseline and not through ibidem; or is said to, and does not."""
    empty: list[str] = field(default_factory=list)
    """What makes the comparison an empty one, so that finding no difference would mean nothing."""
    exempted: list[str] = field(default_factory=list)
    gained: list[str] = field(default_factory=list)
    """Passes through ibidem alone: no fault, but worth a look."""

    @property
    def faults(self) -> list[str]:
        """What makes the command fail."""
        return self.differences + self.empty


def compare(suite: Suite, way: str, guard: str, baseline: Outcomes, through: Outcomes) -> Verdict:
    """Find what passes at baseline and not through ibidem, and what would make that an empty question."""
    verdict = Verdict(gained=sorted(through.passed - baseline.passed))
    rules = [each for each in suite.exempt if way in each.ways and guard in each.guards]
    for test in sorted(baseline.passed):
        ending, said = through.outcomes.get(test, ("missing", "it did not run"))
        rule = next((each for each in rules if covers(each, test)), None)
        if rule is None:
            if ending != "passed":
                verdict.differences.append(f"{ending}: {test}: {first_line(said)}")
        elif ending == "passed":
            verdict.differences.append(f"out of date: {test} is exempted, and passes")
        elif rule.says not in said:
            verdict.differences.append(f"{ending}, and not as it is exempted for: {test}: {first_line(said)}")
        else:
            verdict.exempted.append(f"{test}: {rule.reason}")
    for said, tests in grouped(through.warnings).items():
        verdict.differences.append(
            f"warning from ibidem's code in {len(tests)} tests, such as {tests[0]}: {first_line(said)}"
        )
    if len(baseline.passed) < suite.at_least:
        verdict.empty.append(
            f"only {len(baseline.passed)} tests pass at baseline; at least {suite.at_least} were expected"
        )
    if through.wrapped == 0:
        verdict.empty.append(NOTHING_WRAPPED)
    if guard == "replayed" and through.replays < suite.reached[way] // 2:
        verdict.empty.append(
            f"only {through.replays} repeats were answered from the memo; at least {suite.reached[way] // 2} were expected"
        )
    if through.reached < suite.reached[way]:
        verdict.empty.append(
            f"{through.reached} tests sent a call through a guard; at least {suite.reached[way]} were expected"
        )
    return verdict


def covers(rule: Exempt, test: str) -> bool:
    """Whether *rule* speaks of *test*: of exactly this one, or of all parameters of one function."""
    return test == rule.test or test.partition("[")[0] == rule.test


def grouped(warnings: dict[str, str]) -> dict[str, list[str]]:
    """Turn what was said by test into tests by what was said."""
    tests: dict[str, list[str]] = {}
    for test, said in warnings.items():
        tests.setdefault(said, []).append(test)
    return tests


def first_line(said: str) -> str:
    """Return the first line of a message, short enough for a table."""
    line = said.strip().partition("\n")[0]
    return line if len(line) <= 160 else line[:157] + "..."


def endings(outcomes: Outcomes) -> str:
    """Say in words how the tests ended that did not pass."""
    count = Counter(ending for ending, _ in outcomes.outcomes.values() if ending != "passed")
    return ", ".join(f"{number} {ending}" for ending, number in sorted(count.items()))
