"""
Made-up users, so that a first look shows a board that is alive.

The n-th user is always the same one, and no two share a name: a name is a number written in syllables.
"""

from __future__ import annotations

import random
from itertools import islice
from typing import TYPE_CHECKING

from service.model import MAX_RATING, MIN_RATING
from service.progress import progress
from service.ranking.bulk import CHUNK_LINES, Line, take
from service.ranking.deferred import Deferred
from service.store.bulk import open_intake

if TYPE_CHECKING:
    from collections.abc import Iterator

_SEED = 64
_MEAN, _DEVIATION = 1500, 300
_ONSETS = (
    "b", "c", "d", "f", "g", "h", "j", "k", "l", "m", "n", "p", "r", "s", "t", "v",
    "w", "y", "z", "br", "ch", "dr", "fl", "gr", "kh", "kr", "pr", "sh", "st", "th", "tr", "vl",
)  # fmt: skip
_SYLLABLES = [onset + vowel for onset in _ONSETS for vowel in "aeiou"]
_ENDINGS = (
    "", "n", "r", "s", "l", "x", "ck", "nd", "rk", "st", "lla", "nna", "rin", "ssen", "llo", "rdo", "nov", "lsky",
    "nder", "mar",
)  # fmt: skip
_CASES = (str.lower,) * 4 + (str.title,) * 5 + (str.upper,)
_STRIDE = 15_485_863
"""Shares no factor with any number of words, so that every word is visited before one comes back."""
_NUMBERS = 97
"""A prime: so many numbers may follow a word."""


def fill(database_url: str, count: int) -> None:
    """
    Create `count` made-up users in a database that has the schema and no user; do nothing in any other.

    Raises `Unavailable` or `OutcomeUnknown`; what was created until then stays.
    """
    if count == 0:
        return
    with open_intake(database_url) as intake:
        if not intake.is_empty():
            return
        users, done = made_up(count), 0
        with progress("Making up users", count) as report:
            while lines := list(islice(users, CHUNK_LINES)):
                take(intake, lines, deferred=Deferred())
                done += len(lines)
                report(done, f"{done:,} of {count:,} users")


def made_up(count: int) -> Iterator[Line]:
    """Return the first `count` users, their ratings spread like a real ladder's."""
    source = random.Random(_SEED)  # noqa: S311  the same users every time
    for number in range(count):
        rating = min(max(round(source.gauss(_MEAN, _DEVIATION)), MIN_RATING), MAX_RATING)
        yield Line(number + 1, None, _handle(number, source), rating)


def _handle(number: int, source: random.Random) -> str:
    """Return the n-th handle: a word, a word with a number, or two words; no two differ in case only."""
    group, form = divmod(number, 8)
    if form < 3:
        handle = _word(group * 3 + form, syllables=3)
    elif form < 5:
        index = group * 2 + form - 3
        handle = f"{_word(index, syllables=2)}{_number(index)}"
    else:
        index = group * 3 + form - 5
        handle = f"{_word(source.getrandbits(20), syllables=2)}{'._-'[form - 5]}{_word(index, syllables=3)}"
    return source.choice(_CASES)(handle)


def _words(syllables: int) -> int:
    return int(len(_SYLLABLES) ** syllables) * len(_ENDINGS)


def _word(index: int, *, syllables: int) -> str:
    """Return a word. A syllable ends with its vowel, so that no two numbers below `_words` make the same one."""
    rest = index * _STRIDE % _words(syllables)
    word = ""
    for _ in range(syllables):
        rest, syllable = divmod(rest, len(_SYLLABLES))
        word += _SYLLABLES[syllable]
    return word + _ENDINGS[rest]


def _number(index: int) -> int:
    """Return a number that differs whenever the word of two syllables and this index is the same."""
    visit, word = divmod(index, _words(2))
    return (visit + word * 7) % _NUMBERS
