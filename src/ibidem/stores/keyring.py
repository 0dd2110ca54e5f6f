"""The key that records are authenticated with: given, from the environment, or in a file of the user's own.

It does not stand in the store: who can write there, and nowhere else, can make no record. Lost, it makes every record a
miss, and a new one is made.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path

VARIABLE = "IBIDEM_KEY"
_SHORTEST = 16


def find(given: str | bytes | None, tell: Callable[[str], None]) -> bytes:
    """Give the 32 bytes to authenticate with.

    Args:
        given: What `Guard(key=)` or `Disk(key=)` was given; None: the environment variable `IBIDEM_KEY`, else the file
            `ibidem/key` in the user's configuration directory, which is made if need be.
        tell: Told if there is no key that lasts.

    Raises:
        ValueError: A key of fewer than 16 bytes.
        TypeError: A key that is neither text nor bytes.
    """
    if given is not None:
        return of(given, "key=")
    from_environment = os.environ.get(VARIABLE)
    if from_environment is not None:
        return of(from_environment, f"the environment variable {VARIABLE}")
    try:
        return _from_file(_path())
    except (OSError, RuntimeError) as problem:  # RuntimeError: this user has no home
        tell(
            f"no key can be kept ({problem}): what is stored now will not be found by another process. "
            f"Set {VARIABLE} or give key="
        )
        return secrets.token_bytes(32)


def of(given: str | bytes, where: str) -> bytes:
    """Make 32 bytes of what somebody gave.

    Raises:
        ValueError: It is shorter than 16 bytes.
        TypeError: It is neither text nor bytes.
    """
    if not isinstance(given, (str, bytes)):
        raise TypeError(f"{where} is a text or bytes, not a {type(given).__name__}")
    raw = given.encode("utf-8", "surrogatepass") if isinstance(given, str) else given
    if len(raw) < _SHORTEST:
        raise ValueError(f"{where} is too short: give at least {_SHORTEST} bytes, such as secrets.token_hex()")
    return hashlib.sha256(b"ibidem key\0" + raw).digest()


def _path() -> Path:
    home = os.environ.get("XDG_CONFIG_HOME")
    return (Path(home) if home else Path("~/.config").expanduser()) / "ibidem" / "key"


def _from_file(path: Path) -> bytes:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for _ in range(2):
        with contextlib.suppress(FileNotFoundError):
            return _read(path)
        # Linked into its place when it is complete: of two processes that make one at once, the first wins.
        new = path.with_name(f"key.{secrets.token_hex(8)}")
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(32))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(new, path)
        new.unlink()
    return _read(path)


def _read(path: Path) -> bytes:
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
        found = os.fstat(file.fileno())
        if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
            raise PermissionError(f"{path} can be read by others: chmod 600, or delete it")
        key = file.read(33)
    if len(key) != 32:
        raise OSError(f"{path} does not hold 32 bytes: delete it")
    return key
