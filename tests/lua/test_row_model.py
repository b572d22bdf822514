"""
What the board tells after any sequence of writes, mishaps and repairs, compared with a dict.

A repair is made of the product's own steps: peek at Redis, read Postgres, judge, fix, remove ghosts, set the size
right; with damage before it, and writes in between.
"""

from __future__ import annotations

from itertools import chain
from typing import NamedTuple

import pytest
import redis
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule, run_state_machine_as_test

from service.model import Change, UserId, Version
from service.order import encode, member
from service.ranking.drift import judge
from service.store import lua
from service.store.inspection import Entry

from .board_machine import BATCHES, IDS, NAMES, RATINGS, USERS, BoardMachine
from .calls import BOARD_STATE, BOARD_USERS_STATE, KEYS, Row, Scripts, rows_of

PAGE = 2
COMMITS = st.lists(st.tuples(st.integers(0, USERS - 1), st.integers(0, 3), RATINGS | st.none()), max_size=2)
USER_SETS = st.sets(st.sampled_from(IDS), max_size=2)


class Damage(NamedTuple):
    """What somebody does by hand: members and users' fields lost, members moved, members that are nobody's."""

    lost: set[str]
    forgotten: set[str]
    moved: set[str]
    strangers: set[str]


DAMAGES = st.builds(
    Damage, USER_SETS, USER_SETS, USER_SETS, st.sets(st.sampled_from(["aaa~user0", "~user1", "no-id", "b~nobody"]))
)


class Board(BoardMachine):
    """Reads after every step, and repairs."""

    @invariant()
    def everybody_is_ranked_as_in_the_reference(self) -> None:
        """Ranks and positions of all ids, those who are not on the board included."""
        places = {
            user_id: (
                str(self.reference.users[user_id].version),
                str(rating),
                *self.reference.place(rating, name, besides=user_id),
            )
            for name, user_id, rating in self.reference.board()
        }
        reply = self.scripts.rank(*IDS)

        if self.readable:
            assert ["ok", len(places)] == reply[:2]
            assert [places.get(user_id, ("", "", "", "")) for user_id in IDS] == reply[3:]
        else:
            assert ["notready"] == reply

    @invariant()
    def pages_are_those_of_the_reference(self) -> None:
        """From the beginning to the end, by a number of rows and by the row before: the same pages."""
        if not self.readable:
            assert ["notready"] == self.scripts.slice_at(PAGE, 0)
            return
        board = self.reference.board()
        for offset in range(0, len(board), PAGE):
            rest = board[offset:]
            rank = self.reference.place(rest[0][2], "", besides="")[0]
            pages = [self.scripts.slice_at(PAGE, offset)]
            if offset:
                name, _, rating = board[offset - 1]
                pages.append(self.scripts.slice_after(PAGE, rating, name))
            for page in pages:
                assert (len(board), offset, rank - 1) == (page[1], page[3], page[4])
                assert rest[:PAGE] == rows_of(page)
        assert [] == rows_of(self.scripts.slice_at(PAGE, len(board)))

    @precondition(lambda self: self.readable)
    @rule(rating=RATINGS, name=st.sampled_from(list(chain(*NAMES))))
    def page_after_a_point(self, rating: int, name: str) -> None:
        """Whoever stood there or not."""
        board = self.reference.board()
        behind = [row for row in board if (-row[2], row[0]) > (-rating, name)]
        page = self.scripts.slice_after(PAGE, rating, name)

        assert behind[:PAGE] == rows_of(page)
        assert len(board) - len(behind) == page[3]

    @precondition(lambda self: self.readable)
    @rule(damage=DAMAGES, written=COMMITS, late=BATCHES | st.just([]), again=st.booleans())
    def reconcile(
        self, damage: Damage, written: list[tuple[int, int, int | None]], late: list[int], again: bool
    ) -> None:
        """
        Whatever was damaged: the board is as the reference, and, if nothing came in between, as Postgres.

        In between are commits, and puts of them and of older ones: they stay. With `again` a member is lost before
        the end: the size is not set right then.
        """
        self.damage(damage)
        peeked = self.scripts.call(lua.PEEK, BOARD_USERS_STATE, self.epoch, *IDS)
        miscount = int(self.scripts.state("n")) - self.scripts.client.zcard(KEYS.board)
        entries = dict(zip(IDS, zip(peeked[2::2], peeked[3::2], strict=True), strict=True))
        assert ["ok", miscount] == peeked[:2]
        assert {user_id: self.entry(user_id, damage) for user_id in IDS} == entries

        ledger = {row.id: row for row in self.commits}
        fixes = [fix for user_id in IDS if (fix := self.judged(ledger[user_id], *entries[user_id]))]
        for commit in written:
            self.commit(*commit)
        for row in self.chosen([*range(len(written)), *late]):
            assert self.reference.write(row) == self.scripts.put(row)[1][0]
        if fixes:
            assert ["ok", *(self.reference.fix(*fix) for fix in fixes)] == self.scripts.fix(*fixes, epoch=self.epoch)
        suspects = list(map(str, self.scripts.client.zrange(KEYS.board, 0, -1)))
        ghosts = len(suspects) - len(self.reference.board())
        if suspects:
            assert ["ok", ghosts] == self.scripts.call(lua.GHOSTS, BOARD_USERS_STATE, self.epoch, *suspects)

        if again and self.reference.board():
            name, user_id, rating = self.reference.board()[0]
            self.scripts.remove_by_hand(Row(user_id, 0, rating, name))
            assert ["moved"] == self.resync(miscount)
            self.scripts.client.zadd(KEYS.board, {member(name, UserId(user_id)): rating})
        assert ["ok", len(self.reference.board())] == self.resync(miscount)
        if not written and not late:
            alive = [row for row in ledger.values() if row.rating is not None]
            assert sorted((row.name, row.id, row.rating) for row in alive) == sorted(self.reference.board())

    def entry(self, user_id: str, damage: Damage) -> tuple[str, str]:
        """Return what the users hash holds of a user, and the score of the member that it names."""
        row = self.reference.users.get(user_id)
        if row is None:
            return "", ""
        is_placed = row.rating is not None and user_id not in damage.lost
        return _held(row), str((row.rating or 0) + (user_id in damage.moved)) if is_placed else ""

    def judged(self, row: Row, held: str, score: str) -> tuple[Row, int | str] | None:
        """Return the repair of a user whom Postgres has so, and the mirror so."""
        user_id = UserId(row.id)
        change = None if row.rating is None else Change(user_id, Version(row.version), row.rating, row.name)
        entry = Entry(held.encode(), float(score) if score else None)
        finding = judge(user_id, entry, change, newest=Version(len(self.commits)))
        if finding is None:
            return None
        wanted, want = finding.fix.change, finding.fix.want
        return Row(row.id, wanted.version, wanted.rating, wanted.username or ""), "" if want is None else want

    def damage(self, damage: Damage) -> None:
        """Tamper with the board and the users hash; the reference forgets who is forgotten."""
        for name, user_id, rating in self.reference.board():
            if user_id in damage.moved:
                self.scripts.client.zadd(KEYS.board, {member(name, UserId(user_id)): rating + 1})
            if user_id in damage.lost:
                self.scripts.client.zrem(KEYS.board, member(name, UserId(user_id)))
        for user_id in damage.forgotten:
            self.scripts.client.hdel(KEYS.users, user_id)
            self.reference.users.pop(user_id, None)
        for stranger in damage.strangers:
            self.scripts.client.zadd(KEYS.board, {stranger: 1500})

    def resync(self, miscount: int) -> list[object]:
        """Set the size right."""
        return self.scripts.call(lua.RESYNC, BOARD_STATE, self.epoch, miscount)


def _held(row: Row) -> str:
    return f"{row.version}|{encode(row.name)}"


@pytest.mark.timeout(600)  # when it fails, the history is made as short as it can be
@pytest.mark.parametrize("examples", [80, pytest.param(5000, marks=pytest.mark.slow)])
def test_the_board_is_the_reference_after_any_history(scripts: Scripts, redis_url: str, examples: int) -> None:
    """Put, late put, page, delete, rename, begin anew, repair: the version decides and nothing else."""
    # Without the phase that explains a failure: it traces every line, and takes minutes over a socket.
    phases = [phase for phase in Phase if phase is not Phase.explain]
    with redis.Redis.from_url(redis_url, protocol=2) as raw:
        run_state_machine_as_test(
            type("OverThisRedis", (Board,), {"scripts": scripts, "raw": raw}),
            settings=settings(max_examples=examples, stateful_step_count=30, deadline=None, phases=phases),
        )
