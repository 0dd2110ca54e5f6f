"""What ibidem takes before the first call and after many: the part of cost.py that looks at whole processes."""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import ibidem
from _measure import Report, Sample, interleave

IMPORT_MS = 150
"""What `import ibidem` may take at most over bare Python, in milliseconds of CPU."""
ENTRIES = 100_000
SIZES = {"short": 16, "long": 16 * 1024}
"""Values of two sizes: the first meets the bound of entries, the second that of bytes."""


def imports(report: Report, rounds: int, *, quick: bool) -> None:
    """Add what `import ibidem` takes over bare Python, in processes of their own."""
    programs = {"bare Python": "pass", "import ibidem": "import ibidem"}
    subjects = {name: (lambda program=program: _process(program)) for name, program in programs.items()}
    results = interleave(subjects, rounds, warmup=1 if quick else 2)
    over = [
        1e3 * (one.cpu - bare.cpu)
        for one, bare in zip(results.samples["import ibidem"], results.samples["bare Python"], strict=True)
    ]
    spread = type(results.spread("import ibidem", "cpu")).of(over)
    rows = [
        [name, results.spread(name, "cpu").text(1e3, 0), results.spread(name, "wall").text(1e3, 0)] for name in programs
    ]
    report.table("Importing, in a process of its own", ["program", "CPU ms", "wall ms"], rows)
    report.at_most("import ibidem: CPU ms over bare Python", spread.median, IMPORT_MS, spread.text(1, 0))
    loaded = subprocess.run(
        [sys.executable, "-c", "import ibidem, sys; print(*sys.modules)"], check=True, capture_output=True, text=True
    ).stdout.split()
    frameworks = {"langchain_core", "langgraph", "langchain", "anthropic", "pydantic"}
    found = sorted(frameworks & {name.partition(".")[0] for name in loaded})
    report.exactly("import ibidem: frameworks that it imports", len(found), 0, ", ".join(found))


def _process(program: str) -> Sample:
    wall, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", program], check=True)
    after, took = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - wall
    return Sample(took, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def memory(report: Report, *, quick: bool) -> None:
    """Add what is held after many different calls, each in a process of its own."""
    count = ENTRIES // 50 if quick else ENTRIES
    rows = []
    for name, size in SIZES.items():
        command = [sys.executable, str(Path(__file__)), str(count), str(size)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        rows.append([name, count, found["runs"], found["store"], found["evicted"], f"{found['rss'] / 2**20:.0f}"])
        report.exactly(f"{count:,} {name} results: runs", found["runs"], count)
        report.at_most(f"{count:,} {name} results: entries of the bound", found["entries"] / found["max_entries"], 1.0)
        report.at_most(f"{count:,} {name} results: bytes of the bound", found["bytes"] / found["max_bytes"], 1.0)
    heads = ["results", "calls", "runs", "the store says", "evicted", "RSS grew by MiB"]
    report.table("What a memory store holds after many different calls", heads, rows)


def fill(count: int, size: int) -> dict[str, Any]:
    """Make many different calls behind a guard with a memory store of the default size, and say what it holds."""
    runs = 0

    def order(order_id: int) -> str:
        nonlocal runs
        runs += 1
        return f"{order_id:0{size}d}"

    guard = ibidem.Guard(reads=["order"])
    wrapped = ibidem.wrap(order, guard)
    store: Any = guard.store
    before = _rss()
    for number in range(count):
        wrapped(number)
    return {
        "runs": runs,
        "store": repr(store),
        "entries": sum(1 for _ in store.entries()),
        "bytes": sum(entry.size for _, entry in store.entries()),
        "max_entries": store._max_entries,
        "max_bytes": store._max_bytes,
        "evicted": store.evicted,
        "rss": _rss() - before,
    }


def _rss() -> int:
    """Bytes that this process has in memory; where the system does not say, the most it ever had."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Fill a memory store; cost.py runs this in a process of its own.")
    parser.add_argument("count", type=int, nargs="?", default=1_000)
    parser.add_argument("size", type=int, nargs="?", default=16)
    given = parser.parse_args()
    print(json.dumps(fill(given.count, given.size)))
