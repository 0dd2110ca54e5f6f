"""The house rules: what may import what, how long a file may be, what must not occur."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "ibidem"
FILES = sorted(SOURCE.rglob("*.py"))
FRAMEWORKS = {"langchain_core", "langgraph", "langchain", "anthropic", "diskcache", "httpx", "rich", "IPython", "tqdm"}
ALLOWED = {
    "langchain_core": ("langchain/", "langgraph/", "demo/"),
    "langgraph": ("langgraph/", "demo/", "langchain/middleware.py"),
    "langchain": ("demo/", "langchain/middleware.py"),
    "pydantic": ("langchain/", "anthropic/"),
    "httpx": ("demo/",),
    "rich": ("demo/", "plan/drawing.py"),
    "anthropic": ("anthropic/", "demo/"),
    "diskcache": ("stores/database.py",),
    "cryptography": ("stores/records.py",),
    "sqlite3": ("stores/database.py", "stores/reader.py", "demo/"),
    "IPython": ("notebook.py",),
    "tqdm": ("report/progress.py",),
}


def imports(file):
    """Give the modules that a file imports, those inside functions included."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_a_framework_is_imported_by_its_adapter_only(file):
    place = str(file.relative_to(SOURCE))
    for module in imports(file):
        root = module.partition(".")[0]
        if root in ALLOWED:
            assert place.startswith(ALLOWED[root]), f"{place} imports {module}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_the_core_imports_no_adapter(file):
    place = str(file.relative_to(SOURCE))
    if place.startswith(("core/", "layers/", "stores/", "report/")):
        for module in imports(file):
            for adapter in ("langchain", "langgraph", "anthropic", "functions", "wrapping", "guard", "toolbox"):
                assert not module.startswith(f"ibidem.{adapter}"), f"{place} imports {module}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_no_file_is_long(file):
    assert len(file.read_text().splitlines()) <= 330


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_nothing_decodes_code_r9(file):
    """R9: no pickle, dill, marshal, yaml.load or LangChain load in the package."""
    assert not unsafe(file.read_text())


def unsafe(text):
    found = []
    for node in ast.walk(ast.parse(text)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            names = [node.func.id] if node.func.id in ("eval", "exec") else []
        banned = ("pickle", "dill", "cloudpickle", "marshal", "shelve", "yaml", "langchain_core.load")
        found += [name for name in names if name.startswith(banned) or name in ("eval", "exec")]
    return found


def test_the_scan_for_decoders_can_fail_r9():
    assert unsafe("import pickle") and unsafe("from langchain_core.load import load") and unsafe("eval('1')")


def test_import_ibidem_imports_no_framework():
    script = "import sys, ibidem; print(*{m.partition('.')[0] for m in sys.modules})"
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert "ibidem" in output.split()
    assert not FRAMEWORKS & set(output.split())


def test_wrapping_a_function_imports_no_framework():
    script = (
        "import sys, ibidem; f = ibidem.wrap(lambda x: x, ibidem.Pure()); assert f(1) == f(1) == 1;"
        "print(*{m.partition('.')[0] for m in sys.modules})"
    )
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert not FRAMEWORKS & set(output.split())


def test_tab_shows_what_there_is_for_users_imported_yet_or_not():
    script = "import ibidem, sys; assert {*ibidem.__all__} <= {*dir(ibidem)}; print(*dir(ibidem), *sys.modules)"
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert not {"Any", "TYPE_CHECKING", "toolbox", "langgraph"} & set(output.split())


def test_what_needs_an_extra_says_which():
    script = (
        "import sys; sys.modules['langchain'] = None\n"
        "import ibidem\n"
        "try: ibidem.Middleware\n"
        "except ModuleNotFoundError as error: print(error)"
    )
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert "pip install 'ibidem[langchain]'" in output
