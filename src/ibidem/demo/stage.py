"""Where an act of the demo is played: a shop, the file of the conversation and the folder of the memo."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from ibidem.demo.server import Shop


@dataclass(frozen=True)
class Stage:
    """What is there before an act begins, and after it."""

    shop: Shop
    threads: Path
    """The checkpointer's file."""
    memo: Path
    """The folder of the store, for acts that remember on the disk."""
    key: str
    """The key of the store: given to it, so that none is made in the user's home."""


@contextmanager
def stage() -> Iterator[Stage]:
    """Open a shop of its own, all in a temporary folder that goes with it."""
    with TemporaryDirectory(prefix="ibidem-demo-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with Shop(folder / "shop.db") as shop:
            yield Stage(shop, folder / "threads.db", folder / "memo", secrets.token_hex())
