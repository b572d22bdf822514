"""A list of users as it is read, line by line, and what is written down of the refused ones."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.model import UserId
from service.ranking.bulk import Line
from service.rejects import Rejects
from service.user_csv import MAX_LINE_BYTES, BadList, Record, UserCsv

HEADER = b"id,username,rating\n"


def contents(data: bytes) -> list[Line | str]:
    """What each line of a list turned out to be."""
    return [record.content for record in UserCsv(io.BytesIO(data))]


@pytest.mark.parametrize(
    "data",
    [
        HEADER + b"7,ann,1500\n,bob,100\n",
        b"\xef\xbb\xbf" + HEADER + b"7,ann,1500\n,bob,100",
        HEADER.replace(b"\n", b"\r\n") + b"7,ann,1500\r\n,bob,100\r\n",
        b'"rating","id","username"\n"1500","7","ann"\n100,,bob\n',
        b" ID ,Username,\tRATING\n7,ann,1500\n,bob,100\n",
        b"id;username;rating\n7;ann;1500\n;bob;100\n",
        b'id\tusername\trating\n"7"\tann\t1500\n\tbob\t100\n',
    ],
    ids=["plain", "byte order mark", "CRLF", "quotes and another order", "case and blanks", "semicolons", "tabs"],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_a_list_may_come_as_spreadsheets_and_databases_write_it(data: bytes, pack: type[bytes]) -> None:
    """Marks, line ends, quotes, the order of the columns and compression make no difference."""
    assert [Line(2, UserId("7"), "ann", 1500), Line(3, None, "bob", 100)] == contents(pack(data))


def test_ids_may_be_left_out() -> None:
    """Without a column for them nobody has an id."""
    assert [Line(2, None, "ann", 1500)] == contents(b"username,rating\nann,1500\n")


def test_what_only_an_export_has_is_passed_over() -> None:
    """The header of an export is one of a list: positions and ranks are not looked at."""
    data = b"position,rank,id,username,rating\n1,1,7,ann,1500\n?,,8,bob,1400\n"

    assert [Line(2, UserId("7"), "ann", 1500), Line(3, UserId("8"), "bob", 1400)] == contents(data)


def test_numbers_are_those_of_an_editor() -> None:
    """Lines count from the header, empty ones too, although these are passed over."""
    records = list(UserCsv(io.BytesIO(HEADER + b"\n\r\n1,ann,1500\n\n2,bob,no\n")))

    assert [4, 6] == [record.number for record in records]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"1,ann", "2 columns instead of 3"),
        (b"1,ann,1500,", "4 columns instead of 3"),
        (b"a b,ann,1500", "the id must be"),
        (b"x" * 65 + b",ann,1500", "the id must be"),
        (b"search,ann,1500", "the id search is reserved"),
        (b".,ann,1500", "the id . is reserved"),
        (b"..,ann,1500", "the id .. is reserved"),
        (b"1,an,1500", "the username must be"),
        (b"1, ann,1500", "the username begins or ends with white space"),
        (b"1,ann\0,1500", "the username must be"),
        ("1,änn,1500".encode(), "the username must be"),
        (b"1,ann,", "the rating must be"),
        (b"1,ann,99", "the rating must be"),
        (b"1,ann,5001", "the rating must be"),
        (b"1,ann,0150", "the rating must be"),
        (b"1,ann,1500.0", "the rating must be"),
        (b"1,ann,+1500", "the rating must be"),
        (b"1,ann,1500 ", "the rating begins or ends with white space"),
        ("1,ann,\u0661\u0665\u0660\u0660".encode(), "the rating must be"),
        (b"1,ann,1500\r2,bob,1500", "5 columns instead of 3"),
        (b"1,\xffnn,1500", "not UTF-8"),
        (b'1,"ann,1500', "the quotes do not match"),
        (b'1,"ann"x,1500', "the quotes do not match"),
        (b"1,ann,1500" + b" " * MAX_LINE_BYTES, "longer than"),
        (b"1,ann," + b"1" * 10_000_000, "longer than"),
    ],
)
def test_a_bad_line_is_refused_alone(line: bytes, reason: str) -> None:
    """What the service would not accept is refused with the reason, and the next line is read."""
    refused, taken = contents(HEADER + line + b"\n2,bob,1500\n")

    assert isinstance(refused, str)
    assert refused.startswith(reason)
    assert Line(3, UserId("2"), "bob", 1500) == taken


def test_a_long_line_is_not_kept() -> None:
    """Of a line that is too long, only the beginning is held."""
    (record,) = UserCsv(io.BytesIO(HEADER + b"1" * 10_000_000))

    assert MAX_LINE_BYTES == len(record.raw)


@pytest.mark.parametrize(
    "header",
    [b"", b"\n", b"7,ann,1500\n", b"id,username\n", b"id,name,rating\n", b"username,rating,rating\n", b"a" * 9999],
)
def test_another_header_is_no_list(header: bytes) -> None:
    """A file whose first line is not the header is refused as a whole, and the message says what it should be."""
    with pytest.raises(BadList, match="header id,username,rating"):
        UserCsv(io.BytesIO(header))


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("id,username,rating\n".encode("utf-16"), "UTF-16"),
        ("id,username,rating\n".encode("utf-16-be"), "UTF-16"),
        (b"PK\x03\x04\x00\x00", "not text"),
        (b"id,username,rating\r1,ann,1500\r", "end in CR alone"),
        ("id,username,rating,größe\n".encode("latin-1"), "not UTF-8"),
        (b"id,username,rating,\n", "column 4 has no name"),
        (b"id,username,rating,country\n", "unknown column 'country'"),
        (b"id,username,Username,rating\n", "the column username twice"),
        (b"id,username\n", "lacks the column rating"),
        (b"id|username|rating\n", "none of these columns"),
        (b"1,ann,1500\n", "none of these columns"),
        (b"", "it is empty"),
    ],
)
def test_the_message_names_what_is_wrong_with_the_header(header: bytes, words: str) -> None:
    with pytest.raises(BadList, match=words) as refused:
        UserCsv(io.BytesIO(header))

    assert "\\x" not in str(refused.value)


def test_a_line_that_names_the_separator_may_precede_the_header() -> None:
    """As Excel writes it; lines are still numbered from the beginning of the file."""
    assert [Line(3, UserId("7"), "ann", 1500)] == contents(b"sep=;\r\nid;username;rating\r\n7;ann;1500\r\n")


def test_a_broken_archive_is_read_up_to_there() -> None:
    """A gzip file that breaks off yields its lines, then says after which line it did."""
    whole = HEADER + b"".join(b"%d,user-%d,1500\n" % (number, number) for number in range(50_000))
    numbers: list[int] = []
    with pytest.raises(BadList, match="after line"):
        numbers.extend(record.number for record in UserCsv(io.BytesIO(gzip.compress(whole)[:-1000])))

    assert len(numbers) > 1000


def test_refused_lines_are_written_as_they_were(tmp_path: Path) -> None:
    """Number, reason and text; what cannot be shown is escaped, so that every one is one line."""
    with Rejects(tmp_path / "rejects.csv") as rejects:
        rejects.begin()
        rejects.add(Record(7, b"1,\xff\0\xc3\xa4,1500", ""), "not UTF-8")

    assert 'line,reason,text\n7,not UTF-8,"1,\\xff\\x00ä,1500"\n' == rejects.path.read_text(encoding="utf-8")


def test_without_refusals_there_is_no_file(tmp_path: Path) -> None:
    """One of an earlier import goes away; a device that was named stays."""
    old = tmp_path / "rejects.csv"
    old.write_text("old")
    for path in (old, Path("/dev/null")):
        with Rejects(path) as rejects:
            assert rejects.begin()

    assert not old.exists()
    assert Path("/dev/null").exists()


def test_the_rejects_of_another_process_are_left_alone(tmp_path: Path) -> None:
    """Until it is known that the list is this one's: whoever comes second must not take the file from the first."""
    path = tmp_path / "rejects.csv"
    with Rejects(path) as first:
        assert first.begin()
        with Rejects(path):
            pass
        first.add(Record(7, b"a,b,99", ""), "too low")

    assert 2 == len(path.read_text().splitlines())


def test_a_file_that_took_the_place_of_the_rejects_stays(tmp_path: Path) -> None:
    """Only what was opened is removed at the end; that it is gone already is no error."""
    path = tmp_path / "rejects.csv"
    with Rejects(path) as rejects:
        rejects.begin()
        path.rename(tmp_path / "moved")
        path.write_text("theirs")
    assert "theirs" == path.read_text()

    with Rejects(path) as rejects:
        rejects.begin()
        path.unlink()
    assert not path.exists()


VALUES = st.text('aZ09_.-:, "\n\x00\u00e9', max_size=5) | st.sampled_from(
    ["search", "ann", "1500", "99", "5001", "05", ""]
)


@given(header=st.permutations(["id", "username", "rating", "rank"]), lines=st.lists(st.lists(VALUES, max_size=5)))
def test_the_quick_look_at_a_line_sees_what_the_long_one_does(header: list[str], lines: list[list[str]]) -> None:
    """Whatever a line holds: a good one is the same user, and no other passes for one."""
    data = "\n".join(",".join(line) for line in [header, *lines]).encode()
    quick = contents(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("service.user_csv._good", lambda *_: lambda _: None)

        assert contents(data) == quick


def test_rejects_of_an_import_that_goes_on_are_continued(tmp_path: Path) -> None:
    """What an attempt wrote beyond what was kept is cut off; if there is less than was kept, it is told."""
    path = tmp_path / "rejects.csv"
    first, second = (Record(number, b"text", "reason") for number in (2, 3))
    with Rejects(path) as rejects:
        assert rejects.begin()
        rejects.add(first, "reason")
        kept = rejects.size
        rejects.add(second, "lost")
        rejects.sync()
    with Rejects(path) as rejects:
        assert not rejects.begin(1000)
        assert rejects.begin(kept)
        rejects.add(second, "again")

    assert ["line,reason,text", "2,reason,text", "3,again,text"] == path.read_text().splitlines()
