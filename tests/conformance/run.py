"""Run the frameworks' own tests as they are and through ibidem: what passes as it is must pass through ibidem.

    python tests/conformance/run.py              every suite, every way, every guard; then the negative control
    python tests/conformance/run.py core         one suite
    python tests/conformance/run.py --control    the negative control: deliberate faults, each of which must be found

Source distributions of the installed versions come from the package registry and are kept in `.cache/conformance/`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import broken
from compare import NOTHING_WRAPPED, Outcomes, compare, endings, first_line
from sources import NotPreparedError, UnreachableError, environment, source
from suites import SUITES, WAYS, Suite

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]
CACHE = (PROJECT / ".cache" / "conformance").resolve()
TIMEOUT = 280
"""Seconds that one run of one suite may take."""


@dataclass(frozen=True)
class Run:
    """One pytest process."""

    suite: Suite
    options: tuple[str, ...] = ()
    """Of the plugin; none is the baseline."""
    files: tuple[str, ...] = ()

    def __call__(self, python: Path, root: Path) -> Outcomes:
        label = "-".join([self.suite.name, *self.options[1::2]]).replace(" ", "-")
        kept, log = CACHE / "runs" / f"{label}.json", CACHE / "runs" / f"{label}.log"
        kept.unlink(missing_ok=True)
        files = [
            str(path.relative_to(root)) for each in self.files or self.suite.files for path in sorted(root.glob(each))
        ]
        left_out = [f"--deselect={each}" for each in self.suite.without]
        plugin = ["-p", "no:cacheprovider", "-p", "through", "--outcomes", str(kept), *self.options]
        started = time.monotonic()
        with log.open("w") as output:
            try:
                ran = subprocess.run(
                    [str(python), "-m", "pytest", "-vv", "--tb=short", f"--rootdir={root}", *plugin, *self.suite.arguments, *left_out, *files],
                    cwd=root, env=self.environment(), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                    timeout=TIMEOUT, check=False,
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                raise NotRunError(f"{label} did not end within {TIMEOUT} s", log) from None
        if (
            ran.returncode not in {0, 1} or not kept.exists()
        ):  # neither all passed nor some failed: it did not get so far
            raise NotRunError(f"{label} could not be run", log)
        print(f"  ran {label} in {time.monotonic() - started:.0f} s", flush=True)
        return Outcomes(**json.loads(kept.read_text(encoding="utf-8")))

    def environment(self) -> dict[str, str]:
        """Return the environment of the tests: nothing that switches ibidem, pytest or tracing from outside."""
        foreign = ("IBIDEM", "PYTEST", "LANGCHAIN", "LANGSMITH", "LANGGRAPH")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
        paths = os.pathsep.join([str(HERE), str(PROJECT / "src")])  # what is tested is what stands here
        return {**kept, **self.suite.environment, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}


class NotRunError(Exception):
    """A run that has no outcome to compare."""

    def __init__(self, what: str, log: Path) -> None:
        tail = "\n    ".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
        super().__init__(f"{what}; {log} ends:\n    {tail}")


def main() -> int:
    """Run what the command line asks for; answer 0 if nothing differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=" ".join(each.name for each in SUITES))
    parser.add_argument("--control", action="store_true", help="run only deliberate faults: each must be found")
    parser.add_argument(
        "--strict", action="store_true", help="fail if the registry cannot be reached, instead of skipping"
    )
    asked = parser.parse_args()
    unknown = set(asked.suites) - {each.name for each in SUITES}
    if unknown:
        parser.error(f"no suite is called {', '.join(sorted(unknown))}")
    chosen = [each for each in SUITES if (each.name in asked.suites if asked.suites else each.always)]
    if asked.control:
        chosen = []
    controlled = [each for each in SUITES if each.name in {kind.suite for kind in broken.KINDS.values()}]
    needed = [*chosen, *([] if asked.suites else controlled)]
    (CACHE / "runs").mkdir(parents=True, exist_ok=True)
    try:
        roots = {each.name: source(each.distribution, CACHE) if each.distribution else PROJECT for each in needed}
        python = environment([root for root in roots.values() if root != PROJECT], CACHE)
    except UnreachableError as why:
        print(f"conformance: skipped, the package registry cannot be reached ({why})")
        return int(asked.strict)
    except NotPreparedError as why:
        print(f"conformance: {why}")
        return 1
    with ThreadPoolExecutor(max(2, os.cpu_count() or 2)) as pool:
        try:
            failed = [conformance(each, python, roots[each.name], pool) for each in chosen]
            if not asked.suites:
                failed.append(control(roots, python, pool))
            return max(failed)
        except NotRunError as why:
            print(f"conformance: {why}")
            return 1


def conformance(suite: Suite, python: Path, root: Path, pool: ThreadPoolExecutor) -> int:
    """Run one suite as it is and in every way; print what differs."""
    version = (
        f"{suite.distribution} {metadata.version(suite.distribution)}" if suite.distribution else "langchain-tests"
    )
    print(f"== {suite.name}: {version}", flush=True)
    baseline = pool.submit(Run(suite), python, root)
    runs = {
        (way, guard): pool.submit(Run(suite, ("--through", way, "--guard", guard)), python, root)
        for way, guards in suite.ways.items()
        for guard in guards
    }
    before, rows, failed = baseline.result(), [], 0
    for (way, guard), running in runs.items():
        try:
            through = running.result()
        except NotRunError as why:
            rows.append(f"{way:9}{guard:12}{why}")
            failed = 1
            continue
        verdict = compare(suite, way, guard, before, through)
        failed |= bool(verdict.faults)
        rows.append(f"{way:9}{guard:12}{len(before.passed):5} passed at baseline, {len(through.passed):5} through ibidem; "
                    f"{sum(through.calls.values()):5} calls from {through.reached:3} tests passed the guard"
                    + (f", {through.replays} repeats answered from the memo" if through.replays else ""))  # fmt: skip
        rows.extend(f"    {each}" for each in verdict.faults)
        rows.extend(f"    exempted: {each}" for each in verdict.exempted)
        rows.extend(f"    passes only through ibidem: {each}" for each in verdict.gained)
    print("\n".join(rows))
    print("  " + "; ".join(f"{way}: {WAYS[way]}" for way in suite.ways))
    if endings(before):
        print(f"  not counted, since they do not pass at baseline either: {endings(before)}")
    for test, why in suite.without.items():
        print(f"  left out: {test}: {why}")
    return failed


def control(roots: dict[str, Path], python: Path, pool: ThreadPoolExecutor) -> int:
    """Run deliberate faults; answer 0 if the comparison finds each of them."""
    print("== negative control", flush=True)
    suites = {each.name: each for each in SUITES}

    def submit(options: tuple[str, ...], kind: broken.Control) -> Future[Outcomes]:
        return pool.submit(Run(suites[kind.suite], options, (kind.file,)), python, roots[kind.suite])

    first = {kind.suite: kind for kind in broken.KINDS.values()}
    baselines = {suite: submit((), kind) for suite, kind in first.items()}
    runs = {name: submit(("--broken", name), kind) for name, kind in broken.KINDS.items()}
    missed = 0
    for name, running in runs.items():
        suite = suites[broken.KINDS[name].suite]
        verdict = compare(suite, next(iter(suite.ways)), "undeclared", baselines[suite.name].result(), running.result())
        found = (
            verdict.differences if name != broken.INERT else [each for each in verdict.empty if each == NOTHING_WRAPPED]
        )
        missed |= not found
        print(f"{name:24}" + (f"found: {len(found)}, such as {first_line(found[0])}" if found else "NOT FOUND"))
    return missed


if __name__ == "__main__":
    sys.exit(main())
