"""Defects made on purpose, one at a time, each of which some test must notice."""

from __future__ import annotations

from . import comparing, mirroring, scripts, serving, streaming

MUTATIONS = (
    *scripts.MUTATIONS,
    *mirroring.MUTATIONS,
    *serving.MUTATIONS,
    *comparing.MUTATIONS,
    *streaming.MUTATIONS,
)
