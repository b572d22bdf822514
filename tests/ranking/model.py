"""The ten-line reference: what rank and position mean, over a plain dict."""

from __future__ import annotations

from service.model import Row, User, UserId


def board(users: dict[UserId, User]) -> list[Row]:
    """Every row of the board, straight from the contract's words."""
    ordered = sorted(users.values(), key=lambda user: (-user.rating, user.username.encode()))
    return [
        Row(position, 1 + sum(other.rating > user.rating for other in ordered), user.id, user.username, user.rating)
        for position, user in enumerate(ordered, start=1)
    ]
