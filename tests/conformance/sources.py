"""What the suites are run from: source distributions from the package registry, and an environment of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import tomllib
import venv
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

UNUSED = {
    "fastmcp",
    "langgraph-cli",
    "py-spy",
    "pyperf",
    "pytest-cov",
    "pytest-dotenv",
    "pytest-repeat",
    "pytest-watcher",
    "pytest-xdist",
    "uvloop",
}
"""In the frameworks' test groups, but no test that is run here needs them."""

UNREACHED = ("connection broken", "Could not fetch URL", "(from versions: none)")
"""How pip says that no registry answered."""


class UnreachableError(Exception):
    """The package registry did not answer."""


class NotPreparedError(Exception):
    """The registry answered, but there is nothing that can be run."""


def source(project: str, cache: Path) -> Path:
    """Return the unpacked source distribution of the installed version of *project*, fetching it once."""
    version = metadata.version(project)
    kept = cache / f"{project}-{version}"
    if not kept.exists():
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            pip(
                sys.executable,
                "download",
                "--no-deps",
                f"--no-binary={project}",
                "--dest",
                scratch,
                f"{project}=={version}",
            )
            (archive,) = Path(scratch).glob("*.tar.gz")
            with tarfile.open(archive) as tar:
                tar.extractall(scratch, filter="data")
            (unpacked,) = (each for each in Path(scratch).iterdir() if each.is_dir())
            unpacked.rename(kept)
    if not (kept / "tests").is_dir():
        raise NotPreparedError(f"the source distribution of {project} {version} has no tests")
    return kept


def environment(sources: list[Path], cache: Path) -> Path:
    """Return an interpreter that sees everything this one does, and the test dependencies of *sources* on top.

    Nothing is installed beside the running interpreter, and nothing that it has is replaced: the frameworks under test
    are the installed ones.
    """
    missing = sorted({str(need) for each in sources for need in test_group(each) if not installed(need)})
    home = cache / "venv"
    python = home / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    parents = sorted({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    pins = [f"{each.name}=={each.version}" for each in metadata.distributions() if each.name != "ibidem"]
    recipe = "\n".join([sys.version, *parents, *missing, *sorted(pins)])
    made = home / "recipe"
    if made.exists() and made.read_text() == recipe:
        return python
    shutil.rmtree(home, ignore_errors=True)
    venv.create(home, with_pip=False, symlinks=sys.platform != "win32")
    # addsitedir, not a plain path: the parent's own .pth files (an editable ibidem is one) must count too.
    purelib = sysconfig.get_path("purelib", "venv", vars={"base": str(home), "platbase": str(home)})
    lines = [f"import site; site.addsitedir({each!r})" for each in parents]
    Path(purelib, "parent.pth").write_text("\n".join(lines) + "\n")
    if missing:
        constraints = home / "constraints.txt"
        constraints.write_text("\n".join(pins))
        pip(str(python), "install", "--constraint", str(constraints), *missing)
    made.write_text(recipe)
    return python


def test_group(unpacked: Path) -> list[Requirement]:
    """Return what the dependency group `test` of a project asks for, less what no test here needs."""
    groups = tomllib.loads((unpacked / "pyproject.toml").read_text(encoding="utf-8")).get("dependency-groups", {})

    def lines(group: str) -> list[str]:
        return [
            line
            for each in groups.get(group, [])
            for line in ([each] if isinstance(each, str) else lines(each["include-group"]))
        ]

    needs = [Requirement(line) for line in lines("test")]
    return [need for need in needs if need.name not in UNUSED and (need.marker is None or need.marker.evaluate())]


def installed(need: Requirement) -> bool:
    """Whether the running interpreter has what *need* names; its extras are not looked at."""
    try:
        metadata.distribution(canonicalize_name(need.name))
    except metadata.PackageNotFoundError:
        return False
    return True


def pip(python: str, command: str, *arguments: str) -> None:
    """Run pip, which knows which registry this machine uses."""
    quiet = ("--quiet", "--disable-pip-version-check", "--no-input", "--retries=1")
    ran = subprocess.run(
        [python, "-m", "pip", command, *quiet, *arguments], capture_output=True, text=True, check=False
    )
    if ran.returncode:
        errors = [line for line in ran.stderr.splitlines() if line.startswith("ERROR") or "No module named pip" in line]
        said = f"pip {command} failed: {errors[0] if errors else ran.stderr.strip()[-300:]}"
        raise UnreachableError(said) if any(each in ran.stderr for each in UNREACHED) else NotPreparedError(said)
