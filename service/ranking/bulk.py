"""
What a list of users means: which lines are taken, what each does, and why one is refused.

Lines are taken in their order, each as if alone, however they are cut into chunks:

* with an id: that user is created, or gets the rating and the name;
* without one: the user of that name (case does not count) gets the rating, or is created;
* whoever has that rating and name already is left alone, version and all;
* a name that another user has, and a user or a name that an earlier line took, are refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from service.errors import Unavailable
from service.model import NewUser, UserId, new_user_id
from service.store.bulk import Asked, Plan, Raced

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Sequence

    from service.ranking.repeats import Repeats
    from service.store.bulk import Intake, Known

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
    """What became of a chunk; `refused` is the reason by line number."""

    created: int
    updated: int
    unchanged: int
    refused: dict[int, str]


def take(
    intake: Intake,
    lines: Sequence[Line],
    *,
    repeats: Repeats | None = None,
    settle: Callable[[Outcome], None] = lambda _: None,
) -> Outcome:
    """
    Take a chunk in one transaction; what is returned is committed.

    `repeats` says of which lines something must be noted or looked up, all without it. `settle` is called before the
    commit, for what is to be kept with it; again, with another outcome, if somebody else was faster.

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
    for _ in range(_TRIES):
        try:
            with intake.transaction():
                plan, refused = judge(lines, intake.known(asked), suspects)
                updated = intake.write(plan)
                created = len(plan.created)
                outcome = Outcome(created, updated, len(lines) - len(refused) - created - updated, refused)
                settle(outcome)
        except Raced:
            # Whoever was faster is committed or gone by now, so the next look sees it.
            continue
        return outcome
    message = "others keep writing the same users or names"
    raise Unavailable(message)


def judge(lines: Sequence[Line], known: Known, suspects: Container[int] | None = None) -> tuple[Plan, dict[int, str]]:
    """
    Decide about each line in order; returns what is to be written, and the reasons of those refused.

    Of the lines with the numbers of `suspects`, or of all, it is to be noted what they took.
    """
    plan = Plan()
    refused: dict[int, str] = {}
    for line in lines:
        name = line.username.lower()
        owner = known.owners.get(name)
        user_id = line.id or owner or new_user_id()
        if earlier := known.lines_by_id.get(user_id):
            refused[line.number] = f"line {earlier} is about the same user"
        elif earlier := known.lines_by_name.get(name):
            refused[line.number] = f"line {earlier} has the same username"
        elif owner not in (None, user_id):
            refused[line.number] = f"the username belongs to the user {owner}"
        else:
            _take(NewUser(user_id, line.username, line.rating), known, plan, keeps_name=line.id is None)
            if suspects is None or line.number in suspects:
                plan.noted.append((line.number, user_id, name))
            known.lines_by_id[user_id] = known.lines_by_name[name] = line.number
    return plan, refused


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
