"""Ladder: Postgres keeps the truth, a Redis sorted set keeps the ranks, HTTP is a thin rim."""

__version__ = "0.1.0"
