"""
Reads a list of users: CSV, or gzipped CSV, with the header `id,username,rating`; writes down what was refused of it.

The columns may stand in any order and `id` may be missing; `position` and `rank`, which an export has, are passed over.
One line is one user; nothing is coerced: a value
that is not exactly what the service would accept makes its line a refused one. Memory does not grow with the
list, nor with the length of a line.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import os
import re
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, cast

from service.model import MAX_RATING, MIN_RATING, RESERVED_IDS, USER_ID, USERNAME, UserId
from service.ranking.bulk import Line
from service.ranking.repeats import Repeats

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import TracebackType
    from typing import Self

MAX_LINE_BYTES = 1000
"""Far more than the longest line that could be taken."""
_RATING = re.compile(r"[1-9][0-9]{2,3}\Z")
_GZIP = b"\x1f\x8b"
_BLOCK = 1 << 18
_NEEDED, _OPTIONAL = {"username", "rating"}, {"id", "position", "rank"}


class BadList(Exception):
    """The file is no list of users, or cannot be read to its end; the message is one sentence."""


class Record(NamedTuple):
    """A line of the list: its number in the file, its bytes (cut if it is too long), and its user or the reason."""

    number: int
    raw: bytes
    content: Line | str


class UserCsv:
    """
    The lines of a list, in order; iterate once. Empty lines are passed over.

    Raises `BadList` at once for a wrong header, and later if the file breaks off.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = _unpacked(file)
        self._number = 0
        self._columns = _header(self._next_line().removeprefix(b"\xef\xbb\xbf"))
        self._good = _good(self._columns)

    def __iter__(self) -> Iterator[Record]:
        while raw := self._next_line():
            line = raw.rstrip(b"\r\n")
            if line:
                yield Record(self._number, line, self._parsed(line))

    def _next_line(self) -> bytes:
        try:
            line = raw = self._file.readline(MAX_LINE_BYTES)
            while len(raw) == MAX_LINE_BYTES and not raw.endswith(b"\n"):
                raw = self._file.readline(MAX_LINE_BYTES)
        except (OSError, EOFError, zlib.error) as error:
            message = f"the file cannot be read after line {self._number} ({error})"
            raise BadList(message) from error
        self._number += 1
        return line

    def skip_to(self, number: int) -> None:
        """Pass over the lines up to this one, without a look at them."""
        while self._number < number and self._next_line():
            pass

    def _parsed(self, raw: bytes) -> Line | str:
        # Nearly all lines are good ones, and one look tells that faster than the many that find the reason why not.
        if good := self._good(raw):
            user_id, username, rating = good["id"], good["username"], int(good["rating"])
            if MIN_RATING <= rating <= MAX_RATING and (name := user_id.decode()) not in RESERVED_IDS:
                return Line(self._number, UserId(name) if name else None, username.decode(), rating)
        if len(raw) >= MAX_LINE_BYTES:
            return f"longer than {MAX_LINE_BYTES} bytes"
        try:
            values = _values(raw.decode())
        except UnicodeDecodeError:
            return "not UTF-8"
        if values is None:
            return "the quotes do not match"
        if len(values) != len(self._columns):
            return f"{len(values)} columns instead of {len(self._columns)}"
        named = dict(zip(self._columns, values, strict=True))
        return _line(self._number, named.get("id", ""), named["username"], named["rating"])


class Scan(NamedTuple):
    """What was learnt of a list by reading it once: the SHA-256 of its file, its last line, which may be repeated."""

    digest: bytes
    lines: int
    repeats: Repeats


def scan(file: BinaryIO, report: Callable[[int], None]) -> Scan:
    """
    Read a seekable file to its end and go back to its beginning; `report` is called with the bytes read. O(lines).

    Raises `BadList` for a wrong header. Where it breaks off is for whoever takes the lines to tell.
    """
    digest, repeats, number = hashlib.sha256(), Repeats(), 0
    while block := file.read(_BLOCK):
        digest.update(block)
    file.seek(0)
    try:
        for number, _, content in UserCsv(file):
            if isinstance(content, Line):
                repeats.add(content)
            if number % 20_000 == 0:
                report(file.tell())
    except BadList:
        if not number:
            raise
    file.seek(0)
    return Scan(digest.digest(), number, repeats)


class Rejects:
    """
    The file of refused lines, with their numbers and reasons; use as a context manager.

    Opened at once, to find out that it cannot be (`OSError`), but left as it is until `begin`: it may be that of another
    process, which imports the same list. From then on it is this one's, and removed at the end if nothing was refused.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # What is already there may be of an import that goes on.
        self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "wb", buffering=_BLOCK)
        self._is_regular = path.is_file()
        self._begun = False
        self._size = 0

    def begin(self, size: int = 0) -> bool:
        """Go on after the first bytes, of an earlier import, or from the start; False if there are not so many."""
        if self._is_regular and os.fstat(self._file.fileno()).st_size < size:
            return False
        self._begun = True
        self.cut(size)
        return True

    @property
    def size(self) -> int:
        """The bytes written, 0 if nothing was refused."""
        return self._size

    def cut(self, size: int) -> None:
        """Forget what was written after the first bytes."""
        if self._is_regular:
            self._file.flush()
            self._file.truncate(size)
            self._file.seek(size)
        self._size = size

    def sync(self) -> None:
        """Return when everything written would survive a crash of the machine."""
        self._file.flush()
        if self._is_regular:
            os.fsync(self._file.fileno())

    def add(self, record: Record, reason: str) -> None:
        """Write a line as it was, except that what cannot be shown is escaped."""
        text = record.raw.decode(errors="backslashreplace")
        shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
        lines = io.StringIO()
        writer = csv.writer(lines, lineterminator="\n")
        if not self._size:
            writer.writerow(("line", "reason", "text"))
        writer.writerow((record.number, reason, shown))
        self._size += self._file.write(lines.getvalue().encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        opened = os.fstat(self._file.fileno())
        self._file.close()
        # It may be a device, or another's by now.
        if self._is_regular and self._begun and not self._size:
            with suppress(FileNotFoundError):
                if os.path.samestat(opened, self.path.stat()):
                    self.path.unlink()


def _unpacked(file: BinaryIO) -> BinaryIO:
    # By its first bytes, not by its name: standard input has none.
    buffered = file if isinstance(file, io.BufferedReader) else io.BufferedReader(cast("io.RawIOBase", file))
    if buffered.peek(len(_GZIP))[: len(_GZIP)] == _GZIP:
        return cast("BinaryIO", io.BufferedReader(gzip.GzipFile(fileobj=buffered)))
    return cast("BinaryIO", buffered)


def _header(raw: bytes) -> list[str]:
    columns = _values(raw.rstrip(b"\r\n").decode(errors="replace")) or []
    given = set(columns)
    if len(columns) != len(given) or not _NEEDED <= given <= _NEEDED | _OPTIONAL:
        message = f"the first line must be the header id,username,rating (id may be left out), not {raw[:80]!r}"
        raise BadList(message)
    return columns


def _good(columns: list[str]) -> Callable[[bytes], re.Match[bytes] | None]:
    """Return what tells whether a line is a good one of these columns, without quotes, and if so its values."""
    shapes = {
        "id": rb"(?P<id>(?:[A-Za-z0-9_.:-]{1,64})?)",
        "username": rb"(?P<username>[A-Za-z0-9_.-]{3,32})",
        "rating": rb"(?P<rating>[1-9][0-9]{2,3})",
    }
    pattern = rb",".join(shapes.get(column, rb'[^,"\x80-\xff]*') for column in columns)
    # A value for the id also where there is no column for it.
    prefix = b"" if "id" in columns else rb"(?P<id>)"
    match = re.compile(prefix + pattern + rb"\Z").match
    return lambda raw: found if len(raw) < MAX_LINE_BYTES and (found := match(raw)) else None


def _values(text: str) -> list[str] | None:
    if '"' not in text:
        return text.split(",")
    try:
        # Strict, and one line at a time: an unclosed quote must not swallow the rest of the list.
        return next(csv.reader([text], strict=True))
    except csv.Error:
        return None


def _line(number: int, user_id: str, username: str, rating: str) -> Line | str:
    if user_id and not USER_ID.match(user_id):
        return "the id must be 1 to 64 characters of A-Z a-z 0-9 _ . : -"
    if user_id in RESERVED_IDS:
        return f"the id {user_id} is reserved"
    if not USERNAME.match(username):
        return "the username must be 3 to 32 characters of A-Z a-z 0-9 _ . -"
    if not (_RATING.match(rating) and MIN_RATING <= int(rating) <= MAX_RATING):
        return f"the rating must be a whole number from {MIN_RATING} to {MAX_RATING}"
    return Line(number, UserId(user_id) if user_id else None, username, int(rating))
