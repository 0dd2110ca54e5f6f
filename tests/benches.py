"""The modules of benchmarks/, which is no package, for the tests that look at what they do."""

import importlib
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def bench(name):
    """Import a module of benchmarks/."""
    if str(ROOT / "benchmarks") not in sys.path:
        sys.path.append(str(ROOT / "benchmarks"))
    return importlib.import_module(name)
