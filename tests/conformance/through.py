"""The pytest plugin that sends a framework's own tests through ibidem, and writes down what became of each.

`-p through --through WAY --guard GUARD --outcomes FILE`; without `--through` it only writes down: that is the baseline.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import warnings
from collections.abc import Generator
from pathlib import Path
from typing import Any

import broken
import patches
import pytest
import suites

IBIDEM = Path(str(importlib.util.find_spec("ibidem").origin)).parent


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("ibidem's conformance")
    group.addoption("--through", choices=[*suites.WAYS], help="how the tests get to ibidem")
    group.addoption("--guard", choices=[*suites.GUARDS], default="undeclared")
    group.addoption(
        "--broken", choices=[*broken.KINDS], help="a deliberate fault instead of ibidem: the negative control"
    )
    group.addoption("--outcomes", type=Path, required=True, help="where the outcomes are written")


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Patch before any test module, or conftest, takes a name from a framework."""
    options = early_config.known_args_namespace
    way = broken.KINDS[options.broken].make() if options.broken else patches.make(options.through, options.guard)
    early_config.pluginmanager.register(Recorder(options.outcomes, way), "ibidem-recorder")


class Recorder:
    """Gives every test a guard of its own; keeps, per test, how it ended and how many calls passed the guard."""

    def __init__(self, path: Path, way: patches.Way) -> None:
        self.path, self.way = path, way
        self.outcomes: dict[str, tuple[str, str]] = {}
        self.calls: dict[str, int] = {}
        self.warnings: dict[str, str] = {}
        """What ibidem's own code made others warn of, by test."""

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.way.test(item))
            answer = yield
            self.calls[item.nodeid] = self.way.calls()
            return answer

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        before = self.outcomes.get(report.nodeid, ("", ""))[0]
        if report.when == "call" or report.outcome != "passed":
            if before in {"failed", "error"}:
                return  # what came first is the cause
            self.outcomes[report.nodeid] = (ending(report), message(report))

    def pytest_warning_recorded(self, warning_message: warnings.WarningMessage, nodeid: str) -> None:
        if IBIDEM in Path(warning_message.filename).parents:
            self.warnings[nodeid] = f"{warning_message.category.__name__}: {warning_message.message}"

    def pytest_sessionfinish(self) -> None:
        kept = {
            "outcomes": self.outcomes,
            "calls": self.calls,
            "wrapped": self.way.wrapped,
            "replays": self.way.replays(),
            "warnings": self.warnings,
        }
        self.path.write_text(json.dumps(kept), encoding="utf-8")


def ending(report: pytest.TestReport) -> str:
    """Say how a phase of a test ended."""
    if hasattr(report, "wasxfail"):
        return "xpassed" if report.passed else "xfailed"
    if report.failed and report.when != "call":
        return "error"
    return report.outcome


def message(report: pytest.TestReport) -> str:
    """Return what a failure says, without its traceback."""
    if not report.failed:
        return ""
    crash = getattr(report.longrepr, "reprcrash", None)
    return (crash.message if crash else str(report.longrepr))[:20000]
