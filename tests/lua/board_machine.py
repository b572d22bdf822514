"""The board and a dict, through any sequence of commits, puts, pages, beginnings and mishaps of Redis."""

from __future__ import annotations

from typing import NamedTuple

import redis
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from service.order import encode

from .calls import BOARD_USERS_STATE, KEYS, Row, Scripts
from .reference import Reference

USERS = 6
IDS = [f"user{user}" for user in range(USERS)]
RATINGS = st.sampled_from([1499, 1500, 1501])
# Every name is one user's, begins with some and is the beginning of others, of the same user and of others.
NAMES = [
    ["a" * length, "a" * (length + USERS), "a" * length + "-", "a" * length + "z"] for length in range(3, 3 + USERS)
]
BATCHES = st.lists(st.integers(0, 10_000), min_size=1, max_size=4)


class Moment(NamedTuple):
    """Redis as it was, and what is known of it."""

    dumps: dict[str, bytes]
    reference: Reference
    epoch: str
    readable: bool


class BoardMachine(RuleBasedStateMachine):
    """
    Commits happen first, each a version of a user; puts and pages carry any of them over at any time.

    So a put may be late, early, repeated or never come; what a deletion or another beginning makes of it
    is the reference's to say.
    """

    scripts: Scripts
    raw: redis.Redis  # one that does not decode replies: a dump is no text

    def __init__(self) -> None:
        super().__init__()
        self.commits: list[Row] = []
        self.epochs = 0
        self.epoch = ""
        self.readable = False
        self.kept: Moment | None = None

    @initialize(loaded=BATCHES)
    def load(self, loaded: list[int]) -> None:
        """Every run starts with an empty Redis, and a board that some users have been loaded to."""
        self.scripts.client.flushdb()
        self.begin()
        for user in range(USERS):
            self.commit(user, 0, 1500)
        self.apply(loaded, ready=True)

    @precondition(lambda self: len(self.commits) > 10 * self.epochs)
    @rule()
    def begin(self) -> None:
        """The board starts anew; all versions given out so far are at or below its floor."""
        seen, self.epochs = self.scripts.state("epoch"), self.epochs + 1
        floor = len(self.commits)

        self.epoch = str(self.epochs)

        assert ["ok"] == self.scripts.begin(seen=seen, epoch=self.epoch, token=f"begun-{self.epoch}", floor=floor)

        self.reference, self.readable = Reference(floor), False

    @rule(user=st.integers(0, USERS - 1), name=st.integers(0, 3), rating=RATINGS | st.none())
    def commit(self, user: int, name: int, rating: int | None) -> None:
        """Postgres gives a user a rating and a name, or deletes them; the mirror is not told yet."""
        spelled = NAMES[user][name] if rating is not None else ""
        self.commits.append(Row(f"user{user}", len(self.commits) + 1, rating, spelled))

    def chosen(self, numbers: list[int]) -> list[Row]:
        """Commits of different users, in any order."""
        picked = (self.commits[-1 - number % len(self.commits)] for number in numbers)
        return list({row.id: row for row in picked}.values())

    @precondition(lambda self: self.commits)
    @rule(numbers=BATCHES, before=RATINGS | st.none())
    def put(self, numbers: list[int], before: int | None) -> None:
        """Commits are put: outcomes, ranks before and ranks after are the reference's."""
        rows = self.chosen(numbers)
        ranks_before = ["" if before is None else self.reference.place(before, "", besides=row.id)[0] for row in rows]
        outcomes = [self.reference.write(row) for row in rows]
        expected = []
        for row, outcome, rank_before in zip(rows, outcomes, ranks_before, strict=True):
            # A repair may have left a tombstone of that very version: there is no place to tell then.
            gone = outcome == "same" and self.reference.users[row.id].rating is None
            told = row.rating is not None and outcome != "floor" and self.readable and not gone
            place = self.reference.place(row.rating or 0, row.name, besides=row.id) if told else ("", "")
            expected.append((outcome, *place, rank_before if self.readable else ""))

        assert ["ok", *expected] == self.scripts.put(*(row._replace(before=before) for row in rows))

    @precondition(lambda self: self.commits)
    @rule(numbers=BATCHES, ready=st.booleans())
    def apply(self, numbers: list[int], ready: bool) -> None:
        """Commits, some of them of one user, come in a page, past the floor, and perhaps make the board readable."""
        rows = [self.commits[-1 - number % len(self.commits)] for number in numbers]
        news = [self.reference.write(row, bypass=True) for row in rows].count("applied")
        applied = self.scripts.now_ms() if ready else ""

        assert ["ok", news] == self.scripts.apply(*rows, epoch=self.epoch, applied=applied, ready="1" if ready else "")

        self.readable = self.readable or ready

    def dumps(self) -> dict[str, bytes]:
        """Every key of the board as Redis would write it to disk."""
        dumped = {key: self.raw.dump(key) for key in BOARD_USERS_STATE}
        return {key: dump for key, dump in dumped.items() if isinstance(dump, bytes)}

    def restore(self, dumps: dict[str, bytes]) -> None:
        """Make these keys, and no others, the board."""
        self.raw.delete(*BOARD_USERS_STATE)
        for key, dump in dumps.items():
            self.raw.restore(key, 0, dump)

    @rule()
    def keep(self) -> None:
        """Redis writes itself to disk, or a replica stops to follow."""
        self.kept = Moment(self.dumps(), self.reference.copy(), self.epoch, self.readable)

    @precondition(lambda self: self.kept)
    @rule(numbers=BATCHES)
    def fall_back(self, numbers: list[int]) -> None:
        """Redis is what it was: who feeds it as it was a moment ago is refused, unless nothing was fed since."""
        assert self.kept is not None
        epoch, token = self.epoch, self.scripts.state("tok")
        self.restore(self.kept.dumps)
        self.reference, self.epoch, self.readable = self.kept.reference.copy(), self.kept.epoch, self.kept.readable

        if epoch != self.epoch:
            assert ["epoch"] == self.scripts.apply(*self.chosen(numbers), epoch=epoch, token=token)
        elif token != self.scripts.state("tok"):
            assert ["token"] == self.scripts.apply(*self.chosen(numbers), epoch=epoch, token=token)

    @rule(numbers=BATCHES)
    def flush(self, numbers: list[int]) -> None:
        """Redis forgets everything: nothing is read or written until the board starts anew."""
        self.scripts.client.flushdb()
        rows = self.chosen(numbers)

        assert ["noepoch"] == self.scripts.put(*rows)
        assert ["epoch"] == self.scripts.apply(*rows, epoch=self.epoch, token="")
        assert ["notready"] == self.scripts.rank(rows[0].id)
        assert not self.raw.exists(*BOARD_USERS_STATE)

        self.begin()

    @rule(key=st.sampled_from(BOARD_USERS_STATE))
    def evict(self, key: str) -> None:
        """One key is lost and comes back: no rank meanwhile, unless of nobody."""
        dumps = self.dumps()
        self.raw.delete(key)
        status, *told = self.scripts.rank(*IDS)

        if key == KEYS.users and self.readable:
            assert ("ok", [("", "", "", "")] * USERS) == (status, told[2:])
        elif key == KEYS.state or self.reference.board():
            assert "notready" == status
            assert ["notready"] == self.scripts.slice_at(1, 0)
            assert ["notready"] == self.scripts.slice_after(1, 1500, "aaa")

        self.restore(dumps)

    @invariant()
    def everything_is_as_in_the_reference(self) -> None:
        """The order of the board, the fence of each user, tombstones included, and the expected size."""
        found, users = self.scripts.contents(), self.reference.users

        assert self.reference.board() == found.board
        assert {user_id: f"{row.version}|{encode(row.name)}" for user_id, row in users.items()} == found.users
        assert str(len(found.board)) == found.state["n"]
