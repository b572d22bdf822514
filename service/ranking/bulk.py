"""
What a list of users means: which lines are taken, what each does, and why one is refused.

Lines are taken in their order, each as if alone, however they are cut into chunks:

* with an id: that user is created, or gets the rating and the name;
* without one: the user of that name (case does not count) gets the rating, or is created;
* a user who has that rating and name already is not touched, not even the version;
* a user or a name that an earlier line took is refused;
* a name that another user has is deferred to the end of the list: taken if that user has another name then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from service.errors import Unavailable
from service.model import NewUser, UserId, new_user_id
from service.ranking.deferred import Deferred, belongs_to
from service.store.bulk import Asked, Known, Plan, Raced

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence

    from service.ranking.repeats import Repeats
    from service.store.bulk import Intake

CHUNK_LINES = 5_000
"""Lines of one transaction: the longest that a request may have to wait for one of their users."""
_TRIES = 10


class Line(msgspec.Struct, frozen=True):
    """A well-formed line of a list: its values are within the limits of `service.model`."""

    number: int
    id: UserId | None
    username: str
    rating: int


class Outcome(msgspec.Struct, frozen=True):
    """What became of lines; `refused` is the reason by line number, `deferred` all lines of the list that wait."""

    created: int
    updated: int
    unchanged: int
    refused: dict[int, str]
    deferred: Deferred


def take(
    intake: Intake,
    lines: Sequence[Line],
    *,
    deferred: Deferred,
    repeats: Repeats | None = None,
    settle: Callable[[Outcome], None] = lambda _: None,
) -> Outcome:
    """
    Take a chunk in one transaction; what is returned is committed.

    `deferred` are the waiting lines of earlier chunks, any of which may be refused now. `repeats` tells which lines may
    be about the same user or name as another one; only those are noted and looked up, all without it. `settle` is
    called before the commit with the outcome, to keep something with it; again, with another outcome, if another
    writer was faster.

    Raises `Unavailable` or `OutcomeUnknown`. Lines of which none was refused may be taken again by another
    intake, which changes nothing.
    """
    asked = Asked(
        ids=[line.id for line in lines if line.id is not None], names=[line.username.lower() for line in lines]
    )
    if repeats is None:
        suspects, asked.taken_ids, asked.taken_names = None, asked.ids, asked.names
    else:
        suspects = {line.number for line in lines if repeats.may_repeat(line)}
        asked.taken_ids = [line.id for line in lines if line.id is not None and line.number in suspects]
        asked.taken_names = [line.username.lower() for line in lines if line.number in suspects]

    def attempt() -> Outcome:
        waiting = deferred.copy()
        judged = judge(lines, intake.known(asked), waiting, suspects)
        return _written(intake, judged.plan, judged.taken, judged.refused, waiting)

    return _committed(intake, attempt, settle)


def take_deferred(intake: Intake, deferred: Deferred, *, settle: Callable[[Outcome], None] = lambda _: None) -> Outcome:
    """
    Take some of the lines that waited for the end of the list, and refuse those that can never be taken.

    Call it until no line is left: each call decides at least one. Commits and raises as `take` does.
    """

    def attempt() -> Outcome:
        waiting = deferred.copy()
        known = _known(intake, deferred.lines)
        renames, refused = waiting.resolve(known.owners, limit=CHUNK_LINES)
        plan = Plan(parked=renames.parked)
        for line in renames.lines:
            if line.id is not None:
                _take(NewUser(line.id, line.username, line.rating), known, plan, keeps_name=False)
                # A dry run sees by this that the user's old name is free.
                plan.noted.append((line.number, line.id, line.username.lower()))
        for line in deferred.lines:
            if line.number in refused:
                waiting.remove(line)
        for line in renames.lines:
            waiting.remove(line)
        return _written(intake, plan, len(renames.lines), refused, waiting)

    return _committed(intake, attempt, settle)


def _known(intake: Intake, lines: Sequence[Line]) -> Known:
    """Look up users and owners of any number of lines, in statements of a chunk's size."""
    known = Known()
    for first in range(0, len(lines), CHUNK_LINES):
        chunk = lines[first : first + CHUNK_LINES]
        ids = [line.id for line in chunk if line.id is not None]
        found = intake.known(Asked(ids=ids, names=[line.username.lower() for line in chunk]))
        known.users |= found.users
        known.owners |= found.owners
    return known


def _written(intake: Intake, plan: Plan, taken: int, refused: dict[int, str], waiting: Deferred) -> Outcome:
    updated = intake.write(plan)
    created = len(plan.created)
    return Outcome(created, updated, taken - created - updated, refused, waiting)


def _committed(intake: Intake, attempt: Callable[[], Outcome], settle: Callable[[Outcome], None]) -> Outcome:
    for _ in range(_TRIES):
        try:
            with intake.transaction():
                outcome = attempt()
                settle(outcome)
        except Raced:
            # The faster writer is committed or gone by now, so the next look sees it.
            continue
        return outcome
    message = "others keep writing the same users or names"
    raise Unavailable(message)


class Judged(NamedTuple):
    """What a chunk writes, how many of its lines are taken, and why other lines, deferred ones too, are refused."""

    plan: Plan
    taken: int
    refused: dict[int, str]


def judge(lines: Sequence[Line], known: Known, deferred: Deferred, suspects: Container[int] | None = None) -> Judged:
    """
    Decide about each line in order, and keep in `deferred` those whose name another user has.

    The plan notes what the lines with the numbers in `suspects` took, of all lines without it. O(lines).
    """
    plan, taken, refused = Plan(), 0, {}
    for line in lines:
        name = line.username.lower()
        owner = known.owners.get(name)
        user_id = line.id or owner or new_user_id()
        waiting, about_user = deferred.of_name(name), deferred.of_user(user_id)
        if earlier := known.lines_by_id.get(user_id) or (about_user and about_user.number):
            refused[line.number] = f"line {earlier} is about the same user"
        elif earlier := known.lines_by_name.get(name) or (waiting and user_id != owner and waiting.number):
            refused[line.number] = f"line {earlier} has the same username"
        elif owner is not None and owner != user_id:
            if not deferred.add(line):
                refused[line.number] = belongs_to(owner)
        else:
            if waiting:
                # This user keeps the name that the deferred line waits for.
                deferred.remove(waiting)
                refused[waiting.number] = belongs_to(user_id)
            taken += 1
            _take(NewUser(user_id, line.username, line.rating), known, plan, keeps_name=line.id is None)
            if suspects is None or line.number in suspects:
                plan.noted.append((line.number, user_id, name))
            known.lines_by_id[user_id] = known.lines_by_name[name] = line.number
    return Judged(plan, taken, refused)


def _take(wanted: NewUser, known: Known, plan: Plan, *, keeps_name: bool) -> None:
    """Put one user on the plan, and into what is known for the lines that follow."""
    before = known.users.get(wanted.id)
    if before is None:
        plan.created.append(wanted)
    elif not keeps_name and before.username != wanted.username:
        plan.renamed.append(wanted)
        del known.owners[before.username.lower()]
    elif before.rating != wanted.rating:
        plan.rated.append(wanted)
    known.owners[wanted.username.lower()] = wanted.id
