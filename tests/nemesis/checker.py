"""
What must be true of every history. Pure functions: each takes a history and tells what in it must not be.

A moment is a time of the monotonic clock of the machine that all of it ran on.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import pairwise

from .history import Commit, History, Line, Op, Sample
from .timeline import Timeline

SLACK_SECONDS = 0.02
"""Clocks of two kinds, and milliseconds that were cut off."""
PROMISED_LAG_SECONDS = 2.0
CALM_SECONDS = 8.0
"""So long after the last fault everything is as if there had been none: another tailer leads, breakers are closed."""


READ_SECONDS, WRITE_SECONDS = 3.5, 5.0
"""What the service allows itself: a call to Redis, a row of Postgres' and a count; a write."""
SLACK_SHARE = 1.1
BUSY_SECONDS = 1.0
"""More for a machine that others use, beside what the history shows as stalls."""
REFUSED_SHARE = 0.1
"""Reads that may be refused while one store is away: past the cap of counting, on a busy machine."""
ENOUGH_READS = 30


class Checker:
    """One history, and what the checks have in common."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.timeline = Timeline(history.commits)
        self.by_version = {(commit.id, commit.version): commit for commit in history.commits}
        self.answered = [op for op in history.ops if op.outcome == "ok"]
        self._faults = [fault for fault in history.faults if fault.kind != "work"]

    def run(self) -> list[str]:
        """Return every violation, with the name of its check."""
        return [f"{check.__name__.strip('_')}: {words}" for check in CHECKS for words in check(self)]

    def troubled(self, begin: float, end: float, *kinds: str, node: int | None = None) -> bool:
        """Whether a fault of these kinds (of any, if none is named) lay between the two moments."""
        return any(
            fault.begin <= end and fault.end >= begin
            for fault in self._faults
            if (not kinds or fault.kind in kinds) and (node is None or fault.node in (None, node))
        )

    def damaged(self, op: Op) -> bool:
        """Whether somebody tampered with the board while this was answered."""
        return any(fault.damage and fault.begin <= op.end and fault.end >= op.begin for fault in self._faults)

    def rolled_back(self, begin: float, end: float) -> bool:
        """Whether Redis lost something between the two moments."""
        return any(fault.rollback and fault.begin <= end and fault.end >= begin for fault in self._faults)

    def window(self, op: Op) -> tuple[float, float]:
        """The time that the answer may be of."""
        if op.source == "histogram" and op.as_of is not None:
            return min(op.as_of, op.begin) - SLACK_SECONDS, op.end
        lag = (math.inf if op.lag_ms is None else op.lag_ms / 1000) if op.source == "redis" else 0.0
        return op.begin - lag - SLACK_SECONDS, op.end

    def stalled(self, begin: float, end: float) -> float:
        """Seconds between the two moments in which nobody could run."""
        return sum(max(0.0, min(stall.end, end) - max(stall.begin, begin)) for stall in self.history.stalls)


def acknowledged_writes_are_kept(checker: Checker) -> Iterator[str]:
    """
    An acknowledged write is committed, once; a refused one is not; one of unknown outcome at most once.

    Every rating that is asked for is asked for once a user, so that a commit tells whose it is.
    """
    commits: defaultdict[tuple[str, int], list[Commit]] = defaultdict(list)
    for life in checker.timeline.lives.values():
        rating: int | None = None
        for state in life.states:
            if state.rating is not None and state.rating != rating:
                commits[state.id, state.rating].append(state)
            rating = state.rating
    for op in checker.history.ops:
        if op.asked is not None:
            wrong = _mishandled(op, commits[op.id, op.asked])
            if wrong:
                yield f"{wrong}: {op}"


def _mishandled(op: Op, found: list[Commit]) -> str:
    first = found[0] if found else None
    wrongs = {
        f"done {len(found)} times": len(found) > 1,
        "refused and done all the same": op.outcome == "fail" and first is not None,
        "acknowledged and lost": op.outcome == "ok" and first is None,
        "acknowledged as another version": op.outcome == "ok" and first is not None and first.version != op.version,
        "done by half": op.op == "create" and first is not None and first.username != op.username,
    }
    return next((what for what, is_so in wrongs.items() if is_so), "")


def final_states_keep_what_was_acknowledged(checker: Checker) -> Iterator[str]:
    """The last version of each user is not older than any that was acknowledged."""
    last = {user_id: life.states[-1].version for user_id, life in checker.timeline.lives.items()}
    for op in checker.answered:
        if op.version is not None and op.op in ("create", "rate") and last.get(op.id, -1) < op.version:
            yield f"the last version is {last.get(op.id)}: {op}"


def tokens_are_honoured(checker: Checker) -> Iterator[str]:
    """A read that carries a token never answers from before that write."""
    for op in checker.answered:
        user_id, _, text = op.token.rpartition(":")
        if not user_id or op.op not in ("user", "page"):
            continue
        version = int(text)
        if op.op == "user" and op.id == user_id:
            if op.status == 404:
                life = checker.timeline.lives.get(user_id)
                if not life or not any(
                    state.rating is None and state.version > version and state.not_before <= op.end
                    for state in life.states
                ):
                    yield f"not found, and never deleted since: {op}"
            elif op.version is None or op.version < version:
                yield f"older than the token: {op}"
        for row in op.rows if op.op == "page" else ():
            if row.id == user_id and not any(
                state.version >= version and _is(state, row) for state in checker.timeline.lives[user_id].states
            ):
                yield f"a row from before the token {op.token}: {row}"


def reads_with_tokens_are_monotonic(checker: Checker) -> Iterator[str]:
    """Who always presents the newest version they know of never sees an older one, of writes or of reads."""
    known: dict[tuple[int, str], int] = {}
    for op in sorted(checker.answered, key=lambda op: op.begin):
        if op.version is None or op.op == "page":
            continue
        if op.op == "user" and op.token and op.version < known.get((op.client, op.id), -1):
            yield f"{known[op.client, op.id]} was known: {op}"
        if op.op != "user" or op.token:
            known[op.client, op.id] = max(op.version, known.get((op.client, op.id), -1))


def writers_read_their_writes_where_they_wrote(checker: Checker) -> Iterator[str]:
    """Without a token too, from the process that wrote, unless marked as stale or Redis fell back in between."""
    written: dict[tuple[int, int, int, str], Op] = {}
    for op in sorted(checker.answered, key=lambda op: op.begin):
        place = (op.client, op.node, op.born, op.id)
        if op.op in ("create", "rate"):
            written[place] = op
        elif op.op == "user" and not op.token and op.version is not None and not op.stale and place in written:
            write = written[place]
            fell_back = checker.rolled_back(write.begin, op.end)
            if op.version < (write.version or 0) and op.source != "histogram" and not fell_back:
                yield f"{write.version} was written here: {op}"


def nothing_is_invented(checker: Checker) -> Iterator[str]:
    """Whatever was answered had been asked to be committed: version, rating and name together."""
    for op in checker.answered:
        if op.version is not None:
            commit = checker.by_version.get((op.id, op.version))
            if commit is None or (commit.rating, commit.username) != (op.rating, op.username):
                yield f"committed is {commit}: {op}"
            elif commit.not_before > op.end + SLACK_SECONDS:
                yield f"not committed yet: {op}"
        for row in op.rows:
            life = checker.timeline.lives.get(row.id)
            if life is None or not any(_is(state, row) for state in life.states):
                yield f"never committed, in a page of {op.source}: {row}"


def the_mirror_never_falls_back(checker: Checker) -> Iterator[str]:
    """In one era of the board a version never falls, and nobody is forgotten."""
    for before, now in pairwise(checker.history.samples):
        if before.era == now.era:
            for user_id, version in before.versions.items():
                if now.versions.get(user_id, -1) < version:
                    yield f"{user_id} from {version} to {now.versions.get(user_id)} at {now.end:.3f}"


def pages_are_in_order(checker: Checker) -> Iterator[str]:
    """Strictly in the board's order, nobody twice, positions without gaps, ranks by ratings."""
    for op in checker.answered:
        if op.op != "page" or checker.damaged(op):
            continue
        wrong = _disorder(op)
        if wrong:
            yield f"{wrong}: {op}"


def _disorder(op: Op) -> str:
    rows = op.rows
    order = [_place(row) for row in rows]
    first = rows[0] if rows else None
    wrongs = {
        "out of order": any(before >= now for before, now in pairwise(order)),
        "somebody twice": len({row.id for row in rows}) < len(rows),
        "positions with a gap": any(now.position != before.position + 1 for before, now in pairwise(rows)),
        "not where it was asked for": first and op.offset is not None and first.position != op.offset + 1,
        "not behind its cursor": first and op.after and order[0] <= (-op.after[0], op.after[1].encode()),
        "more rows than users": first and op.total is not None and rows[-1].position > op.total,
        "ranks that do not follow from the ratings": any(
            now.rank != (before.rank if now.rating == before.rating else now.position) for before, now in pairwise(rows)
        ),
        "a rank behind its position": first and not 1 <= first.rank <= first.position,
    }
    return next((what for what, is_so in wrongs.items() if is_so), "")


def ranks_are_of_their_time(checker: Checker) -> Iterator[str]:
    """
    Rank, position and total lie between the least and the most that what was committed then allows.

    Postgres answers from one moment for all. The mirror has everything up to its lag, and of what came
    later any part. A write's rank is checked in calm times, when the mirror lags no more than is promised.
    """
    for op in checker.answered:
        if checker.damaged(op):
            continue
        begin, end = checker.window(op)
        if op.op in ("create", "rate"):
            if checker.troubled(op.begin - CALM_SECONDS, op.end):
                continue
            begin -= PROMISED_LAG_SECONDS
        count = checker.timeline.at_once if op.source == "postgres" else checker.timeline.mixed
        if op.rank is not None and op.rating is not None:
            yield from _outside("rank", op.rank - 1, count(begin, end, _above(op.rating), but=op.id), op)
        if op.position is not None and op.rating is not None:
            before = _before(op.rating, op.username)
            yield from _outside("position", op.position - 1, count(begin, end, before, but=op.id), op)
        if op.op == "page":
            if op.total is not None:
                yield from _outside("total", op.total, count(begin, end, _exists), op)
            for row in op.rows[:1]:
                yield from _outside("rank", row.rank - 1, count(begin, end, _above(row.rating), but=row.id), op)


def _outside(what: str, found: int, bounds: tuple[int, int], op: Op) -> Iterator[str]:
    if not bounds[0] <= found <= bounds[1]:
        yield f"{what} counts {found}, and may count {bounds[0]}..{bounds[1]}: {op}"


def lags_are_honest(checker: Checker) -> Iterator[str]:
    """What was committed before the announced lag is in the answer; and no row is of an older time than that."""
    for op in checker.answered:
        if op.op not in ("user", "page") or checker.damaged(op) or op.source == "":
            continue
        begin, end = checker.window(op)
        if op.op == "user" and op.version is not None:
            life = checker.timeline.lives[op.id]
            first, _ = life.during(begin, end)
            if first < len(life.states) and op.version < life.states[first].version:
                yield f"{life.states[first].version} was surely there: {op}"
        for row in op.rows:
            life = checker.timeline.lives[row.id]
            first, last = life.during(begin, end)
            if not any(_is(state, row) for state in life.states[first:last]):
                yield f"not of that time, in a page of {op.source} with lag {op.lag_ms} at {op.begin:.3f}: {row}"


def the_freshness_stamp_is_honest(checker: Checker) -> Iterator[str]:
    """While the board is ready, everything that was committed before its stamp is in it."""
    for sample in checker.history.samples:
        if sample.ready and not any(
            fault.damage and fault.begin <= sample.end and fault.end >= sample.begin for fault in checker.history.faults
        ):
            for user_id, version in _lacking(checker, sample, sample.applied - SLACK_SECONDS):
                yield f"{user_id} lacks {version} of before {sample.applied:.3f} at {sample.end:.3f}"


def the_mirror_is_fresh_in_calm_times(checker: Checker) -> Iterator[str]:
    """Outside faults every commit is in the mirror after two seconds."""
    for sample in checker.history.samples:
        limit = sample.begin - PROMISED_LAG_SECONDS
        if checker.troubled(sample.begin - CALM_SECONDS, sample.end):
            continue
        limit -= checker.stalled(limit, sample.end)
        for user_id, version in _lacking(checker, sample, limit):
            yield f"{user_id} lacks {version}, {PROMISED_LAG_SECONDS} s later, at {sample.end:.3f}"


def _lacking(checker: Checker, sample: Sample, moment: float) -> Iterator[tuple[str, int]]:
    """Whose state of before the moment the sample lacks; of who was gone when a load came by it may know nothing."""
    for user_id, life in checker.timeline.lives.items():
        number = bisect_left(life.sure, moment) - 1
        if number < 0:
            continue
        version = life.states[number].version
        if user_id in sample.versions:
            if sample.versions[user_id] < version:
                yield user_id, version
        else:
            _, last = life.during(moment, sample.end)
            if all(state.rating is not None for state in life.states[number:last]):
                yield user_id, version


def nobody_waits_too_long(checker: Checker) -> Iterator[str]:
    """Nothing takes longer than its deadline and a tenth, from a process that was not itself stopped."""
    for op in checker.history.ops:
        if checker.troubled(op.begin, op.end, "node", node=op.node):
            continue
        limit = (READ_SECONDS if op.op in ("user", "page") else WRITE_SECONDS) * SLACK_SHARE + BUSY_SECONDS
        taken = op.end - op.begin
        if taken - checker.stalled(op.begin, op.end) > limit:
            yield f"{taken:.2f} s: {op}"


def reads_succeed_without_one_store(checker: Checker) -> Iterator[str]:
    """
    With Redis away reads are served, up to the cap on counting; with Postgres away pages are; with neither, all.

    Who restarts is not asked, nor is who has just done so.
    """
    for name, away, whole, verbs in (
        ("Redis", "redis", "postgres", ("user", "page")),
        ("Postgres", "postgres", "redis", ("page",)),
        ("neither", "", "", ("user", "page", "create", "rate")),
    ):
        asked, refused = 0, []
        for op in checker.history.ops:
            if op.op not in verbs or checker.troubled(op.begin - CALM_SECONDS, op.end, "node", node=op.node):
                continue
            if away:
                due = checker.troubled(op.begin, op.end, away)
                other = checker.troubled(op.begin - CALM_SECONDS, op.end, whole)
            else:
                due, other = True, checker.troubled(op.begin - CALM_SECONDS, op.end)
            if due and not other:
                asked += 1
                refused += [op] if op.outcome != "ok" and op.status not in (404, 409) else []
        if len(refused) > max(ENOUGH_READS, asked) * (REFUSED_SHARE if away else 0.01):
            yield f"without {name} {len(refused)} of {asked} failed, among them {refused[0]}"


def nothing_fails_inside(checker: Checker) -> Iterator[str]:
    """No answer is a defect: what goes wrong has a status of its own."""
    for op in checker.history.ops:
        if op.status not in (0, 200, 201, 404, 409, 503):
            yield f"{op}"


def _place(row: Line) -> tuple[int, bytes]:
    return -row.rating, row.username.encode()


def _is(state: Commit, row: Line) -> bool:
    return (state.rating, state.username) == (row.rating, row.username)


def _exists(state: Commit) -> bool:
    return state.rating is not None


def _above(rating: int) -> Callable[[Commit], bool]:
    return lambda state: state.rating is not None and state.rating > rating


def _before(rating: int, username: str) -> Callable[[Commit], bool]:
    mine = (-rating, username.encode())
    return lambda state: state.rating is not None and (-state.rating, state.username.encode()) < mine


CHECKS: tuple[Callable[[Checker], Iterator[str]], ...] = (
    acknowledged_writes_are_kept,
    final_states_keep_what_was_acknowledged,
    tokens_are_honoured,
    reads_with_tokens_are_monotonic,
    writers_read_their_writes_where_they_wrote,
    nothing_is_invented,
    the_mirror_never_falls_back,
    pages_are_in_order,
    ranks_are_of_their_time,
    lags_are_honest,
    the_freshness_stamp_is_honest,
    the_mirror_is_fresh_in_calm_times,
    nobody_waits_too_long,
    reads_succeed_without_one_store,
    nothing_fails_inside,
)


def check(history: History) -> list[str]:
    """Return every violation of what must be true of any history."""
    return Checker(history).run()
