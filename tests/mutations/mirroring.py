"""Mutations of how the mirror is fed, healed and compared."""

from __future__ import annotations

from .mutation import Mutation

TAIL, MOMENTS = "tests/ranking/test_tail.py", "tests/ranking/test_tail_moments.py"
REPAIRS, DAMAGES = "tests/ranking/test_repair_moments.py", "tests/ranking/test_reconcile.py"
WRITES = "tests/ranking/test_uncommitted_writes.py"

MUTATIONS = (
    Mutation(
        "the checkpoint moves before the last row",
        "service/store/mirror.py",
        "marks = _marks(feeding if chunk is chunks[-1] else Feeding())",
        "marks = _marks(feeding if chunk is chunks[0] else Feeding())",
        (f"{MOMENTS}::test_nothing_is_claimed_before_the_last_row_is_in",),
    ),
    Mutation(
        "the checkpoint moves in a call of its own",
        "service/store/mirror.py",
        "        chunks = list(_chunks(feeding.rows, PUT_ROWS)) or [()]\n",
        "        chunks = list(_chunks(feeding.rows, PUT_ROWS)) or [()]\n"
        "        if feeding.rows:\n"
        "            marks = Feeding((), feeding.checkpoint, feeding.loaded, feeding.applied_ms, feeding.ready)\n"
        "            _, token = await self.feed(marks, epoch=epoch, token=token)\n"
        "            feeding = Feeding(feeding.rows)\n",
        (f"{MOMENTS}::test_nothing_is_claimed_before_the_last_row_is_in",),
    ),
    Mutation(
        "the horizon comes from a second statement",
        "service/store/feed.py",
        "return found, Checkpoint(rows[0][0]), True",
        "return found, (await self.origin())[0], True",
        (f"{MOMENTS}::test_whoever_commits_behind_the_look_is_not_passed_over",),
    ),
    Mutation(
        "the checkpoint follows the rows, not the horizon",
        "service/store/queries.sql",
        "     WHERE (u.xact, u.id) > (%(xact)s::xid8, %(id)s::text) AND u.xact < now.horizon\n",
        "     WHERE (u.xact, u.id) > (%(xact)s::xid8, %(id)s::text)\n",
        (f"{MOMENTS}::test_the_checkpoint_waits_for_the_oldest_transaction",),
    ),
    Mutation(
        "tombstones are passed over",
        "service/store/queries.sql",
        "     WHERE (t.xact, t.id) > (%(xact)s::xid8, %(id)s::text) AND t.xact < now.horizon\n",
        "     WHERE false\n",
        (f"{TAIL}::test_sql_written_by_hand_reaches_the_mirror",),
    ),
    Mutation(
        "freshness is claimed by a clock read too late",
        "service/ranking/tail.py",
        "checkpoint=checkpoint, applied_ms=state.now_ms, run=state.run, ready=True)",
        "checkpoint=checkpoint, applied_ms=(await self._mirror.state()).now_ms, run=state.run, ready=True)",
        (f"{MOMENTS}::test_freshness_is_that_of_the_moment_before_the_look",),
    ),
    Mutation(
        "the settled rows come first",
        "service/ranking/tail.py",
        "        checkpoint, drained = state.checkpoint, False\n"
        "        while not drained:\n"
        "            changes, checkpoint, drained = await feed.unsettled(checkpoint, limit=TAIL_ROWS)\n"
        "            if changes:\n"
        '                await failpoints.reach("tail_after_query")\n'
        "                applied, token = await self._mirror.feed(Feeding(board_rows(changes)), epoch=state.epoch, token=token)\n"
        '                await failpoints.reach("tail_after_apply")\n'
        "                news += applied\n"
        "        checkpoint, drained = state.checkpoint, False\n"
        "        while not drained:\n"
        "            changes, checkpoint, drained = await feed.changes(checkpoint, limit=TAIL_ROWS)\n",
        "        settled = await feed.changes(state.checkpoint, limit=TAIL_ROWS)\n"
        "        checkpoint, drained = state.checkpoint, False\n"
        "        while not drained:\n"
        "            changes, checkpoint, drained = await feed.unsettled(checkpoint, limit=TAIL_ROWS)\n"
        "            if changes:\n"
        '                await failpoints.reach("tail_after_query")\n'
        "                applied, token = await self._mirror.feed(Feeding(board_rows(changes)), epoch=state.epoch, token=token)\n"
        '                await failpoints.reach("tail_after_apply")\n'
        "                news += applied\n"
        "        checkpoint, drained = state.checkpoint, False\n"
        "        while not drained:\n"
        "            changes, checkpoint, drained = settled\n",
        (f"{MOMENTS}::test_whatever_ends_between_the_looks_is_in_one_of_them",),
    ),
    Mutation(
        "what is unsettled waits",
        "service/ranking/tail.py",
        "            changes, checkpoint, drained = await feed.unsettled(checkpoint, limit=TAIL_ROWS)\n",
        "            changes, checkpoint, drained = [], checkpoint, True\n",
        (f"{TAIL}::test_an_open_transaction_holds_up_nobody",),
    ),
    Mutation(
        "a load makes the board readable from its first page",
        "service/ranking/load.py",
        "Feeding(rows, loaded=mark)",
        "Feeding(rows, loaded=mark, applied_ms=state.now_ms, ready=True)",
        (f"{TAIL}::test_the_board_is_not_read_before_the_load_is_through",),
    ),
    Mutation(
        "a load makes the board readable before the tail",
        "service/ranking/load.py",
        "Feeding(rows, loaded=mark)",
        "Feeding(rows, loaded=mark, applied_ms=state.now_ms, ready=bool(mark) and page >= pages)",
        (f"{MOMENTS}::test_a_load_alone_makes_no_board_readable",),
    ),
    Mutation(
        "a part of the tail makes the board readable",
        "service/ranking/tail.py",
        "                if drained\n",
        "                if True\n",
        (f"{MOMENTS}::test_a_part_of_the_tail_claims_nothing",),
    ),
    Mutation(
        "a table that was rewritten is walked on",
        "service/ranking/load.py",
        "    if file != (await feed.heap())[0]:\n        raise Refused\n",
        "",
        (f"{TAIL}::test_a_table_that_is_rewritten_during_a_load_is_walked_again",),
    ),
    Mutation(
        "a load goes on behind rows that were lost",
        "service/ranking/load.py",
        'mark = f"{file}:{page}" if rows is stretch[-1] else None',
        'mark = f"{file}:{page}"',
        (f"{MOMENTS}::test_a_load_that_died_in_a_stretch_goes_on_at_its_beginning",),
    ),
    Mutation(
        "another database wipes the board",
        "service/ranking/tail.py",
        "if state is not None and not (any_board or succeeds(self.source, state.source)):",
        "if False:",
        ("tests/faults/test_histories.py::test_another_database_does_not_wipe_the_board",),
    ),
    Mutation(
        "a primary that was given up succeeds",
        "service/store/history.py",
        "(mine[:2] == theirs[:2] and mine[2] >= theirs[2])",
        "mine[:2] == theirs[:2]",
        ("tests/unit/test_history.py::test_another_database_or_an_older_timeline_does_not",),
    ),
    Mutation(
        "a damaged board is fed on",
        "service/store/mirror.py",
        'intact=int(fields["n"]) == members and members <= (2 * known if in_repair else known),',
        "intact=True,",
        ("tests/unit/test_mirror_state.py::test_a_board_is_intact_with_the_members_it_expects",),
    ),
    Mutation(
        "a repair reads Postgres first",
        "service/ranking/repair.py",
        "        entries = await self._inspection.peek(list(suspects), epoch=self._epoch)\n"
        '        await failpoints.reach("reconcile_after_peek")\n'
        "        changes = await self._feed.users(list(suspects))\n",
        "        changes = await self._feed.users(list(suspects))\n"
        '        await failpoints.reach("reconcile_after_peek")\n'
        "        entries = await self._inspection.peek(list(suspects), epoch=self._epoch)\n",
        (f"{REPAIRS}::test_whoever_returns_between_the_looks_stays",),
    ),
    Mutation(
        "an orphan is removed whatever came since",
        "service/ranking/drift.py",
        'return Finding("orphan", Fix(gone, version))',
        'return Finding("orphan", Fix(Change(user_id, Version(10**14), None, None), None))',
        (f"{REPAIRS}::test_whoever_returns_before_the_removal_stays",),
    ),
    Mutation(
        "an orphan is removed before all was seen",
        "service/ranking/repair.py",
        'elif finding.drift == "orphan" or self._terms.allow_rewind:\n                self._held_back.append(finding)',
        'elif finding.drift == "orphan" or self._terms.allow_rewind:\n                safe.append(finding)',
        (f"{DAMAGES}::test_too_many_removals_are_refused_before_the_first",),
    ),
    Mutation(
        "any number of orphans is removed",
        "service/ranking/repair.py",
        "        if self._report.orphan + self._report.ahead > self._limit and not",
        "        if False and not",
        (f"{DAMAGES}::test_too_many_removals_are_refused_before_the_first",),
    ),
    Mutation(
        "a dry run repairs",
        "service/ranking/repair.py",
        "if not findings or self._terms.dry_run:",
        "if not findings:",
        (f"{DAMAGES}::test_drift_is_found_repaired_and_gone[fields lost]",),
    ),
    Mutation(
        "a repaired user's object stays cached",
        "service/store/inspection.py",
        "stale = [user_object(fix.change.id) for fix in fixes if fix.want is not None]",
        "stale = []",
        (f"{DAMAGES}::test_a_cached_user_does_not_outlive_a_bypassed_trigger",),
    ),
    Mutation(
        "a pass goes on where another board's was",
        "service/ranking/reconcile.py",
        "return mine == (other.source, other.epoch, other.server, other.file, other.terms)",
        "return mine is not None",
        ("tests/ranking/test_reconcile_races.py::test_a_place_on_other_ground_means_nothing[epoch]",),
    ),
    Mutation(
        "a write is put before it is committed",
        "service/ranking/writing.py",
        "            written = await self._carry_over(await self._ledger.rate(ratings))\n",
        "            users = await self._ledger.users([item.id for item in ratings])\n"
        "            await self._guarded.put([\n"
        "                Rated(msgspec.structs.replace(user, rating=item.rating, version=user.version + 1), user.rating, self._source())\n"
        "                for item in ratings if (user := users.get(item.id))\n"
        "            ])\n"
        "            written = await self._carry_over(await self._ledger.rate(ratings))\n",
        (f"{WRITES}::test_a_write_that_fails_at_its_commit_is_nowhere",),
    ),
    Mutation(
        "a write is put although its commit failed",
        "service/ranking/writing.py",
        "            written = await self._carry_over(await self._ledger.rate(ratings))\n",
        "            users = await self._ledger.users([item.id for item in ratings])\n"
        "            try:\n"
        "                outcomes = await self._ledger.rate(ratings)\n"
        "            except Exception:\n"
        "                await self._guarded.put([\n"
        "                    Rated(msgspec.structs.replace(user, rating=item.rating, version=user.version + 1), user.rating, self._source())\n"
        "                    for item in ratings if (user := users.get(item.id))\n"
        "                ])\n"
        "                raise\n"
        "            written = await self._carry_over(outcomes)\n",
        (f"{WRITES}::test_a_write_that_fails_at_its_commit_is_nowhere",),
    ),
)
