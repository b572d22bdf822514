"""Mutations of what readers and writers are answered."""

from __future__ import annotations

from .mutation import Mutation

BREAKER, GUARDED, CHOICE, COALESCER, OBJECTS, HISTOGRAM, ORDER, CURSOR = (
    f"tests/unit/test_{name}.py"
    for name in ("breaker", "guarded", "choice", "coalesce", "objects", "histogram", "order", "cursor")
)
EQUAL = "tests/ranking/test_equal_answers.py"

MUTATIONS = (
    Mutation(
        "names are not reversed",
        "service/order.py",
        "_REVERSED = {code: 0xA7 - code for code in range(0x2D, 0x7B)}",
        "_REVERSED = {code: code for code in range(0x2D, 0x7B)}",
        (f"{ORDER}::test_members_by_bytes_descending_are_usernames_ascending",),
    ),
    Mutation(
        "a prefix stands after its extensions",
        "service/order.py",
        'TERMINATOR = "~"',
        'TERMINATOR = "!"',
        (f"{ORDER}::test_members_by_bytes_descending_are_usernames_ascending",),
    ),
    Mutation(
        "equals on a page have ranks of their own",
        "service/order.py",
        "if above is not None and rating != above:",
        "if above is not None:",
        (f"{ORDER}::test_ranks_carry_on_from_any_first_row",),
    ),
    Mutation(
        "a cached object of any version is served",
        "service/store/objects.py",
        "if head != str(version).encode() or (source",
        "if (source",
        (f"{OBJECTS}::test_another_version_is_a_miss",),
    ),
    Mutation(
        "a cached object of a lost history is served",
        "service/store/objects.py",
        " or (source != ANY_SOURCE and history != digest(source).encode()):",
        ":",
        (f"{OBJECTS}::test_another_history_is_a_miss",),
    ),
    Mutation(
        "a rank of one version beside the rating of another",
        "service/ranking/ladder.py",
        "if standing is None or standing.version != user.version:",
        "if standing is None:",
        ("tests/ranking/test_mixed_versions.py",),
    ),
    Mutation(
        "a look-up may be from before the reader's write",
        "service/ranking/guarded.py",
        "if all(map(has, lookup.since)) else Behind()",
        "if True else Behind()",
        ("tests/faults/test_lag.py::test_a_lost_put_is_seen_by_its_instance_and_by_its_token",),
    ),
    Mutation(
        "a mirror that lags is believed",
        "service/ranking/choice.py",
        "if not doubtful and lag_ms <= (FRESH_LAG_MS if demand.exact else PREFERRED_LAG_MS):",
        "if not doubtful:",
        (f"{CHOICE}::test_the_lag_decides",),
    ),
    Mutation(
        "an unknown lag counts as none",
        "service/ranking/choice.py",
        "lag_ms = found.board.lag_ms\n",
        "lag_ms = found.board.lag_ms or 0\n",
        (f"{CHOICE}::test_the_lag_decides",),
    ),
    Mutation(
        "connections to the master that was are kept",
        "service/store/connection.py",
        " or self._made_at <= self.address.doubted_at",
        "",
        ("tests/store/test_connection.py::test_doubt_replaces_every_connection_to_the_address_once",),
    ),
    Mutation(
        "doubt counts from the answer",
        "service/ranking/choice.py",
        "doubtful = self._mirror.is_doubtful(lag_ms, asked_at=asked_at)",
        "doubtful = self._mirror.is_doubtful(lag_ms, asked_at=self._clock())",
        (f"{CHOICE}::test_a_failure_while_the_mirror_is_asked_counts",),
    ),
    Mutation(
        "a read joins the batch that is under way",
        "service/ranking/coalesce.py",
        "                    self._joinable.pop(call.item, None)\n                batch.append(call)\n",
        "                    pass\n                batch.append(call)\n",
        (f"{COALESCER}::test_a_call_joins_the_next_batch_and_never_the_one_in_flight",),
    ),
    Mutation(
        "two writes of one user at a time",
        "service/ranking/coalesce.py",
        "return all(self._queues[key][0] is call for key in call.keys)",
        "return True",
        (f"{COALESCER}::test_writes_of_one_key_go_one_after_the_other",),
    ),
    Mutation(
        "the histogram counts the user's own rating",
        "service/ranking/histogram.py",
        "return self._above[MAX_RATING - rating]",
        "return self._above[MAX_RATING - rating + 1]",
        (f"{HISTOGRAM}::test_it_ranks_as_the_model_does",),
    ),
    Mutation(
        "a histogram's age counts from its answer",
        "service/ranking/histogram.py",
        "            asked_at = self._clock()\n"
        "            kept = self._newest = Histogram(await self._ask(), asked_at=asked_at)\n",
        "            kept = self._newest = Histogram(await self._ask(), asked_at=self._clock())\n",
        (f"{HISTOGRAM}::test_its_age_counts_from_the_question",),
    ),
    Mutation(
        "Postgres counts equals as higher",
        "service/store/queries.sql",
        "CROSS JOIN LATERAL (SELECT count(*) AS users FROM users o WHERE o.rating > u.rating) AS above",
        "CROSS JOIN LATERAL (SELECT count(*) AS users FROM users o WHERE o.rating >= u.rating) AS above",
        (f"{EQUAL}::test_redis_sql_and_model_agree",),
    ),
    Mutation(
        "a page of Postgres begins with the cursor's own row",
        "service/store/queries.sql",
        "WHERE rating = %(rating)s AND username > %(username)s ORDER BY username",
        "WHERE rating = %(rating)s AND username >= %(username)s ORDER BY username",
        (f"{EQUAL}::test_redis_sql_and_model_agree",),
    ),
    Mutation(
        "the wanted version of a write is ignored",
        "service/store/queries.sql",
        "\n      AND (asked.wanted IS NULL OR held.version = ANY(asked.wanted::bigint[]))\n",
        "\n",
        ("tests/ranking/test_races.py::test_conditional_updates_admit_one_winner_per_version",),
    ),
    Mutation(
        "an equal rating is a change",
        "service/store/queries.sql",
        "WHERE held.rating <> asked.rating + CASE WHEN asked.relative THEN held.rating ELSE 0 END",
        "WHERE true",
        ("tests/api/test_rating.py::test_an_equal_rating_changes_nothing",),
    ),
    Mutation(
        "cursors need no key",
        "service/ranking/cursor.py",
        "if hmac.compare_digest(code, self._code(body)):",
        "if True:",
        (f"{CURSOR}::test_a_changed_byte_is_noticed",),
    ),
    Mutation(
        "keys are compared without their digest",
        "service/api/access.py",
        'digest = hashlib.sha256(key.strip().encode("latin-1", "replace")).digest()',
        'digest = bytes.fromhex(key) if len(key) == 64 else b""',
        ("tests/api/test_access.py::test_nobody_else_may_write",),
    ),
    Mutation(
        "a key needs no scheme",
        "service/api/access.py",
        'if scheme.lower() != "bearer" or not any(known):',
        "if not any(known):",
        ("tests/api/test_access.py::test_nobody_else_may_write",),
    ),
    Mutation(
        "a mirror that failed is believed at once",
        "service/ranking/guarded.py",
        "return lag_ms >= (asked_at - self._failed_at) * 1000",
        "return False",
        (f"{GUARDED}::test_places_on_a_doubtful_board_are_not_told",),
    ),
    Mutation(
        "a pending write leaves no doubt",
        "service/ranking/guarded.py",
        'if any(place.outcome == "pending" for place in placed):',
        "if False:",
        (f"{GUARDED}::test_writes_that_arrive_give_no_new_reason_for_doubt",),
    ),
    Mutation(
        "the breaker never opens",
        "service/ranking/breaker.py",
        "        if self._failed_in_a_row >= FAILURES_IN_A_ROW or (calls >= WINDOW_CALLS and failures * 2 > calls):\n"
        "            self._open()\n",
        "",
        (f"{BREAKER}::test_it_opens_after_failures_in_a_row",),
    ),
    Mutation(
        "everybody is a probe",
        "service/ranking/breaker.py",
        'if self._state != "closed":',
        'if self._state == "open":',
        (f"{BREAKER}::test_one_probe_decides",),
    ),
)
