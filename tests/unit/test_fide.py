"""The example that turns a month of the FIDE list into a list of users."""

from __future__ import annotations

import gzip
import importlib.util
import io
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from service.ranking.bulk import Line
from service.user_csv import UserCsv

PROGRAM = Path(__file__).parents[2] / "examples" / "fide.py"
LIST = """\
# A comment, and a site before the players
@SITE "x"
Reykjavik #- ISL
   %Bio FIDEID 1
   %Elo 2021:2000
@PLAYER "., -_*"
### START OF PLAYER SECTION
Carlsen, Magnus #GM NOR [2847] 1990.11.30
   %Bio Title GM:2004
   %Bio FIDEID 1503014
   %Elo 2019:2835,2845 2020:2872,2862
   %Elo 2021:2862,2862,2847,?
A-ALI, Sali Abbas Abdulzahra O'Neill #WFM IRQ [1919] 2001 w
   = Abbas, Sali
   %Elo 2021:1911,1911,1911,1911
   %Bio FIDEID 4804929
Morphy, Paul #GM USA [2690*]
Unrated, Player #-  DEN
   %Bio FIDEID 1442848
   %Elo 2021:?,?
Deprecated, Number #-  DEN
   %Bio FIDEID 9999999deprecated
   %Elo 2021:1500,1500,1500,1500
Broken, List #-  DEN
   %Bio FIDEID 77
   %Elo 2021:1500,M 18,M
... #-  DEN
   %Bio FIDEID 88
   %Elo 2021:1600
@EVENT "x"
Wijk aan Zee #- NED
   %Bio FIDEID 2
   %Elo 2021:2000
"""


@pytest.fixture(scope="module")
def fide() -> ModuleType:
    """The program as a module."""
    spec = importlib.util.spec_from_file_location("fide", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fide"] = module
    spec.loader.exec_module(module)
    return module


def run(*arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    """Run the program as an operator does."""
    return subprocess.run([sys.executable, PROGRAM, *arguments], capture_output=True, check=False)


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_a_month_becomes_a_list_that_can_be_imported(tmp_path: Path, pack: type[bytes]) -> None:
    """Players with a FIDE id and a rating that month, in the list's order; each line is one that an import takes."""
    path = tmp_path / "spelling.ssp"
    path.write_bytes(pack(LIST.encode()))
    done = run(path, "--month", "2021-01")

    assert (0, b"") == (done.returncode, done.stderr)
    assert (
        b"id,username,rating\n"
        b"1503014,Carlsen-Magnus-1503014,2862\n"
        b"4804929,A-ALI-Sali-Abbas-Abdulza-4804929,1911\n"
        b"88,player-88,1600\n"
    ) == done.stdout
    assert all(isinstance(record.content, Line) for record in UserCsv(io.BytesIO(done.stdout)))
    assert done.stdout == run(path, "--month", "2021-01").stdout


@pytest.mark.parametrize(("month", "rating"), [(2, 2862), (3, 2847), (4, 0), (5, 0)])
def test_each_month_has_its_own_rating(fide: ModuleType, month: int, rating: int) -> None:
    """The n-th value of a year is that of its n-th month; a question mark, or nothing, is no rating."""
    found = {player.fide_id: player.rating for player in fide.players(LIST.splitlines(), fide.Month(2021, month))}

    assert rating == found.get("1503014", 0)


def test_a_month_that_is_not_in_the_list_is_an_error(tmp_path: Path) -> None:
    """Nobody with a rating: exit code 1, and a sentence."""
    path = tmp_path / "spelling.ssp"
    path.write_text(LIST)
    done = run(path, "--month", "2022-12")

    assert 1 == done.returncode
    assert b"no player has a rating in 2022-12" in done.stderr


@pytest.mark.parametrize("arguments", [(), ("--month", "2021"), ("--month", "2021-13"), ("--month", "2012-01")])
def test_wrong_arguments_are_refused(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """No month, no such month, a month before the lists were monthly: exit code 2."""
    path = tmp_path / "spelling.ssp"
    path.write_text(LIST)

    assert 2 == run(path, *arguments).returncode
    assert 2 == run(tmp_path / "missing", "--month", "2021-01").returncode


def test_a_reader_may_stop_early(tmp_path: Path) -> None:
    """Piped into `head`, the program ends quietly."""
    path = tmp_path / "spelling.ssp"
    player = "Carlsen, Magnus #GM\n   %Bio FIDEID 1503014\n   %Elo 2021:2862\n"
    path.write_text('@PLAYER ""\n' + player * 20_000)
    with subprocess.Popen(
        [sys.executable, PROGRAM, path, "--month", "2021-01"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as program:
        assert program.stdout is not None
        assert program.stderr is not None
        program.stdout.readline()
        program.stdout.close()

        assert b"" == program.stderr.read()
        assert 0 == program.wait()
