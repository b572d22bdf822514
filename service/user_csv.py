"""
Reads a list of users: CSV, or gzipped CSV, with the header `id,username,rating`.

The columns may stand in any order and `id` may be missing; `position` and `rank`, which an export has, are passed over.
Case and white space in the header do not count, and its columns may be separated by commas, semicolons or tabs.
One line is one user; no value is coerced: one that the service would not accept refuses its line. Memory does not grow
with the list, nor with the length of a line.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import re
import zlib
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, cast

from service.model import MAX_RATING, MIN_RATING, RESERVED_IDS, USER_ID, USERNAME, UserId
from service.ranking.bulk import Line
from service.ranking.repeats import Repeats

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator

MAX_LINE_BYTES = 1000
"""Far more than the longest line that could be taken."""
_RATING = re.compile(r"[1-9][0-9]{2,3}\Z")
_GZIP = b"\x1f\x8b"
_BLOCK = 1 << 18
_NEEDED, _OPTIONAL = ("username", "rating"), ("id", "position", "rank")
_SEPARATORS = (",", ";", "\t")
_SEPARATOR_LINE = re.compile(rb"sep=([,;\t])\Z", re.IGNORECASE)
"""What Excel writes in front of the header."""
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


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
        first = self._next_line().removeprefix(b"\xef\xbb\xbf")
        if named := _SEPARATOR_LINE.match(first.rstrip(b"\r\n")):
            self._separator = named[1].decode()
            first = self._next_line()
        else:
            self._separator = _separator(first)
        self._columns = _header(first, self._separator)
        self._good = _good(self._columns, self._separator)

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

    def skip_to(self, number: int, *, keep: Container[int] = ()) -> list[Record]:
        """Pass over the lines up to this one, without a look at them; return those with the numbers to keep."""
        kept = []
        while self._number < number and (raw := self._next_line()):
            if self._number in keep:
                line = raw.rstrip(b"\r\n")
                kept.append(Record(self._number, line, self._parsed(line)))
        return kept

    def _parsed(self, raw: bytes) -> Line | str:
        # Nearly all lines are good ones, and one look tells that faster than the many that find the reason why not.
        if good := self._good(raw):
            user_id, username, rating = good["id"], good["username"], int(good["rating"])
            if MIN_RATING <= rating <= MAX_RATING and (name := user_id.decode()) not in RESERVED_IDS:
                return Line(self._number, UserId(name) if name else None, username.decode(), rating)
        if len(raw) >= MAX_LINE_BYTES:
            return f"longer than {MAX_LINE_BYTES} bytes"
        try:
            values = _values(raw.decode(), self._separator)
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


def _unpacked(file: BinaryIO) -> BinaryIO:
    # By its first bytes, not by its name: standard input has none.
    buffered = file if isinstance(file, io.BufferedReader) else io.BufferedReader(cast("io.RawIOBase", file))
    if buffered.peek(len(_GZIP))[: len(_GZIP)] == _GZIP:
        return cast("BinaryIO", io.BufferedReader(gzip.GzipFile(fileobj=buffered)))
    return cast("BinaryIO", buffered)


def _separator(header: bytes) -> str:
    """Return what separates the columns of a header: the first of the known separators that it holds."""
    return next((each for each in _SEPARATORS if each.encode() in header), ",")


def _header(raw: bytes, separator: str) -> list[str]:
    """Return the names of the columns; raises `BadList` with a sentence that names what is wrong."""
    line = raw.rstrip(b"\r\n")
    if raw.startswith(_UTF_16) or b"\0" in raw:
        message = "the file is in UTF-16 or is not text: save it as CSV in UTF-8"
        raise BadList(message)
    if b"\r" in line:
        message = "the lines of the file end in CR alone: save it with the line ends LF or CRLF"
        raise BadList(message)
    try:
        columns = [name.strip().lower() for name in _values(line.decode(), separator) or []]
    except UnicodeDecodeError:
        message = "the first line is not UTF-8: save the file as CSV in UTF-8"
        raise BadList(message) from None
    if problem := _column_problem(columns):
        message = f"the first line must be the header id,username,rating (id may be left out): {problem}"
        raise BadList(message)
    return columns


def _column_problem(columns: list[str]) -> str:
    """Say what is wrong with the columns of a header, "" if nothing is."""
    known = (*_NEEDED, *_OPTIONAL)
    for place, name in enumerate(columns, start=1):
        if columns.count(name) > 1 and name:
            return f"it has the column {name} twice"
        if name in known:
            continue
        # Without a single known column the line is hardly a header.
        if set(columns).isdisjoint(known):
            return "it has none of these columns" if any(columns) else "it is empty"
        if not name:
            return f"its column {place} has no name"
        return f"it has the unknown column {name[:40]!r}; remove that column"
    missing = [name for name in _NEEDED if name not in columns]
    return f"it lacks the column {missing[0]}" if missing else ""


def _good(columns: list[str], separator: str) -> Callable[[bytes], re.Match[bytes] | None]:
    """Return what tells whether a line is a good one of these columns, without quotes, and if so its values."""
    shapes = {
        "id": rb"(?P<id>(?:[A-Za-z0-9_.:-]{1,64})?)",
        "username": rb"(?P<username>[A-Za-z0-9_.-]{3,32})",
        "rating": rb"(?P<rating>[1-9][0-9]{2,3})",
    }
    between = separator.encode()
    pattern = between.join(shapes.get(column, rb'[^"\x80-\xff' + between + rb"]*") for column in columns)
    # A value for the id also where there is no column for it.
    prefix = b"" if "id" in columns else rb"(?P<id>)"
    match = re.compile(prefix + pattern + rb"\Z").match
    return lambda raw: found if len(raw) < MAX_LINE_BYTES and (found := match(raw)) else None


def _values(text: str, separator: str) -> list[str] | None:
    if '"' not in text:
        return text.split(separator)
    try:
        # Strict, and one line at a time: an unclosed quote must not swallow the rest of the list.
        return next(csv.reader([text], strict=True, delimiter=separator))
    except csv.Error:
        return None


def _line(number: int, user_id: str, username: str, rating: str) -> Line | str:
    for name, value in (("id", user_id), ("username", username), ("rating", rating)):
        if value != value.strip():
            return f"the {name} begins or ends with white space"
    if user_id in RESERVED_IDS:
        return f"the id {user_id} is reserved"
    if user_id and not USER_ID.match(user_id):
        return "the id must be 1 to 64 characters of A-Z a-z 0-9 _ . : -"
    if not USERNAME.match(username):
        return "the username must be 3 to 32 characters of A-Z a-z 0-9 _ . -"
    if not (_RATING.match(rating) and MIN_RATING <= int(rating) <= MAX_RATING):
        return f"the rating must be a whole number from {MIN_RATING} to {MAX_RATING}"
    return Line(number, UserId(user_id) if user_id else None, username, int(rating))
