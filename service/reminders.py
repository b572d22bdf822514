"""
Limits a repeated log message to one a minute, for all processes of a service together.

While a store is away, each pool of every worker reports it again and again. The processes are forked from one, and share
a small unnamed file with the time of each message.
"""

from __future__ import annotations

import fcntl
import os
import struct
import tempfile
import time
import weakref
from contextlib import contextmanager
from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECONDS = 60.0
_ENTRY = struct.Struct("8sd")
_ENTRIES = 64
"""More than the different messages of two absent stores; the oldest entry gives way."""


class Reminders:
    """When each message was last logged. Workers share an instance that was made before they were forked."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        with tempfile.TemporaryFile() as file:
            self._file = os.dup(file.fileno())
        weakref.finalize(self, os.close, self._file)
        os.pwrite(self._file, bytes(_ENTRY.size * _ENTRIES), 0)

    def is_due(self, words: str) -> bool:
        """Whether these words were not logged for a minute; then they count as logged now. O(1), under a lock of the file."""
        now, key = self._clock(), blake2b(words.encode(errors="replace"), digest_size=8).digest()
        with self._locked():
            entries = list(_ENTRY.iter_unpack(os.pread(self._file, _ENTRY.size * _ENTRIES, 0)))
            place, said_at = next(
                ((place, at) for place, (known, at) in enumerate(entries) if known == key and at > 0), (None, None)
            )
            if said_at is not None and now - said_at < SECONDS:
                return False
            if place is None:
                place = min(range(_ENTRIES), key=lambda number: entries[number][1])
            os.pwrite(self._file, _ENTRY.pack(key, now), place * _ENTRY.size)
            return True

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # A lock that belongs to the process, so that the death of a process releases it.
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)
