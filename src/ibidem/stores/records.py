"""Records: an entry as bytes that nobody without the key can make, change, or put in another's place.

A record is the MAC, a head of fixed size, a piece of JSON that describes the entry, and the value. The MAC (HMAC-SHA256)
covers the format, the row that the record stands in, which is a keyed digest of the key asked for, and everything in the
record. It is checked before anything is read, by the code that always checks it: nothing in a record names a format, an
algorithm, a class or a path. With a key for encryption, description and value are encrypted (AES-256-GCM).
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ibidem.core.call import Key
from ibidem.stores.codec import LARGEST, NotDecoded, NotEncoded, decode, encode, scan
from ibidem.stores.protocol import Entry

Buffer = bytes | memoryview

_Head = tuple[Any, ...]

_FORMAT = b"ibidem record 1\0"
_HEAD = struct.Struct("<16sQdddQII")
"""Incarnation, snapshot, time stored, time to live (negative: none), seconds of the run, size, and the lengths of what a
hit must know and of what only a list shows."""
_MAC = 32
_START = _MAC + _HEAD.size

_UNREADABLE = (NotDecoded, ValueError, TypeError, LookupError, StopIteration, RecursionError)


@dataclass(frozen=True)
class Cipher:
    """Encrypts with AES-256-GCM, of the extra `encrypt`."""

    encrypt: Callable[[bytes, bytes, bytes], bytes]
    decrypt: Callable[[bytes, bytes, bytes], bytes]

    @classmethod
    def of(cls, key: bytes) -> Cipher:
        """Make one.

        Raises:
            ModuleNotFoundError: The extra is not installed.
        """
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                "Disk(encrypt=...) needs the package cryptography: pip install 'ibidem[encrypt]'"
            ) from None
        cipher = AESGCM(key)
        return cls(cipher.encrypt, cipher.decrypt)


class Records:
    """Writes and reads records.

    Args:
        key: 32 bytes that the processes of the store share.
        encrypt: 32 bytes more, to encrypt with; None: values lie open.
    """

    def __init__(self, key: bytes, encrypt: bytes | None = None) -> None:
        self.pepper = derived(key, b"arguments")
        # Two keys, or what one store has encrypted another that does not would take for plain.
        self._macs = Hmac(derived(key, b"records" if encrypt is None else b"encrypted records"))
        self._rows = hashlib.sha256(derived(key, b"rows").ljust(64, b"\0"))
        self._cipher = None if encrypt is None else Cipher.of(derived(encrypt, b"values"))

    def row(self, key: Key) -> bytes:
        """Give the name of the row that a key is found in: a digest that tells nothing of the key."""
        partition = "\0".join((str(len(key.partition[-1])), *key.partition))
        about = f"{len(key.identity)}\0{len(partition)}\0{key.identity}{partition}"
        row = self._rows.copy()
        row.update(about.encode("utf-8", "surrogatepass"))
        row.update(key.arguments)
        return row.digest()

    def tag(self, conversation: str) -> bytes:
        """Give the name under which the rows of a conversation are found together."""
        tag = self._rows.copy()
        tag.update(b"conversation\0" + conversation.encode("utf-8", "surrogatepass"))
        return tag.digest()[:16]

    def write(self, row: bytes, key: Key, entry: Entry, incarnation: bytes) -> bytes:
        """Write the record of an entry.

        Raises:
            NotEncoded: Its value is of a kind that is not written, or too large.
        """
        hit = _json([entry.tool, entry.conversation, entry.cells])
        listed = _json([key.identity, key.partition, key.arguments.hex()])
        ttl = -1.0 if entry.ttl is None else entry.ttl
        about = incarnation, entry.snapshot, entry.stored_at, ttl, entry.elapsed, entry.size, len(hit), len(listed)
        head, rest = _HEAD.pack(*about), b"".join((hit, listed, encode(entry.value)))
        if self._cipher is not None:
            nonce = os.urandom(12)
            rest = nonce + self._cipher.encrypt(nonce, rest, row + head)
        if _START + len(rest) > LARGEST:
            raise NotEncoded(f"a result of {len(rest):,} bytes is kept in memory only: {LARGEST:,} are the most")
        return self._macs(_FORMAT, row, head, rest) + head + rest

    def read(self, row: bytes, record: bytes, incarnation: bytes) -> Entry | None:
        """Read a record; None if it was not written for this row, in this life of the store, with our key."""
        found = self._opened(row, record, incarnation)
        if found is None:
            return None
        head, rest = found
        try:
            return _entry(head, rest)
        except _UNREADABLE:
            return None

    def listed(self, row: bytes, record: bytes, incarnation: bytes) -> tuple[Key, Entry] | None:
        """Read a record without knowing its key, to list or to forget it."""
        found = self._opened(row, record, incarnation)
        if found is None:
            return None
        head, rest = found
        try:
            identity, partition, arguments = _parts(rest[head[6] : head[6] + head[7]])
            key = Key(identity, tuple(partition), bytes.fromhex(arguments))
            return (key, _entry(head, rest)) if self.row(key) == row else None
        except _UNREADABLE:
            return None

    def _opened(self, row: bytes, record: bytes, incarnation: bytes) -> tuple[_Head, Buffer] | None:
        if not _START <= len(record) <= LARGEST:
            return None
        view = memoryview(record)
        if not hmac.compare_digest(self._macs(_FORMAT, row, view[_MAC:]), view[:_MAC]):
            return None
        head = _HEAD.unpack_from(record, _MAC)
        if head[0] != incarnation:
            return None
        rest = view[_START:]
        if self._cipher is None:
            return head, rest
        try:
            return head, self._cipher.decrypt(bytes(rest[:12]), bytes(rest[12:]), row + record[_MAC:_START])
        except Exception:  # cryptography's InvalidTag, which is not imported for this
            return None


def derived(key: bytes, what: bytes) -> bytes:
    """Derive a key for one purpose."""
    return hmac.digest(key, b"ibidem " + what, "sha256")


class Hmac:
    """HMAC-SHA256 under one key, which is taken in once: that is half of the work for a short text."""

    def __init__(self, key: bytes) -> None:
        block = key.ljust(64, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block))

    def __call__(self, *parts: Buffer) -> bytes:
        inner, outer = self._inner.copy(), self._outer.copy()
        for part in parts:
            inner.update(part)
        outer.update(inner.digest())
        return outer.digest()


def _entry(head: _Head, rest: Buffer) -> Entry:
    _, snapshot, stored_at, ttl, elapsed, size, hit, listed = head
    tool, conversation, cells = _parts(rest[:hit])
    value = decode(rest[hit + listed :])
    kept = tuple([tuple(cell) for cell in cells])
    return Entry(value, snapshot, kept, stored_at, None if ttl < 0 else ttl, elapsed, tool, conversation, size)


def _json(parts: list[Any]) -> bytes:
    return json.dumps(parts, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def _parts(text: Buffer) -> Any:
    """Read what `_json` wrote."""
    return scan(str(text, "utf-8", "surrogatepass"), 0)[0]
