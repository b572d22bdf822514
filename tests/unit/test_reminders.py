"""What is said once a minute is said once by all processes together."""

from __future__ import annotations

import os

from service.reminders import SECONDS, Reminders


class Clock:
    """Time that stands still."""

    def __init__(self) -> None:
        self.now = 1.0

    def __call__(self) -> float:
        """The present."""
        return self.now


def test_the_same_words_are_due_after_a_minute() -> None:
    """Others at any time."""
    clock = Clock()
    reminders = Reminders(clock=clock)

    assert [True, False, True] == [reminders.is_due(words) for words in ("a", "a", "b")]
    clock.now += SECONDS - 1
    assert not reminders.is_due("a")
    clock.now += 1
    assert [True, False] == [reminders.is_due("a"), reminders.is_due("a")]


def test_many_different_words_take_a_fixed_room() -> None:
    """The oldest are forgotten, which says them again."""
    clock = Clock()
    reminders = Reminders(clock=clock)
    for number in range(1000):
        clock.now += 0.001
        assert reminders.is_due(str(number))

    assert not reminders.is_due("999")
    assert reminders.is_due("0")


def test_processes_that_are_forked_say_it_once_together() -> None:
    """Though all of them find out at the same moment."""
    reminders = Reminders()
    start, go = os.pipe()
    children = []
    for _ in range(8):
        child = os.fork()
        if child == 0:
            os.close(go)
            os.read(start, 1)
            os._exit(reminders.is_due("Postgres is away"))
        children.append(child)
    os.close(start)
    os.close(go)

    assert 1 == sum(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)
