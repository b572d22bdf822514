"""Mutations of what whoever watches the top of the board is told."""

from __future__ import annotations

from .mutation import Mutation

AUDIENCE, STREAM, WITHOUT = (
    f"tests/{name}.py" for name in ("unit/test_audience", "api/test_stream", "api/test_stream_without_stores")
)

MUTATIONS = (
    Mutation(
        "a page is sent to who has it",
        "service/api/audience.py",
        "if page.id == self._seen:",
        "if page.id == None:",
        (
            f"{AUDIENCE}::test_nobody_is_sent_what_they_have",
            f"{AUDIENCE}::test_while_nobody_can_answer_a_newcomer_waits",
        ),
    ),
    Mutation(
        "a stale page takes the place of another",
        "service/api/audience.py",
        "if stale and (self._seen is not None or self._pending):",
        "if stale and False:",
        (f"{AUDIENCE}::test_a_stale_page_is_for_who_has_none",),
    ),
    Mutation(
        "a newcomer is told of a page from before an outage",
        "service/api/audience.py",
        "                self._held = None\n                pause = AGAIN_SECONDS",
        "                pause = AGAIN_SECONDS",
        (f"{AUDIENCE}::test_while_nobody_can_answer_a_newcomer_waits",),
    ),
    Mutation(
        "the board is read for nobody",
        "service/api/audience.py",
        "                self._anybody.clear()\n",
        "                pass\n",
        (f"{AUDIENCE}::test_nothing_is_read_for_nobody",),
    ),
    Mutation(
        "a shorter page has the cursor of the longest",
        "service/api/audience.py",
        "cursors.after(msgspec.structs.replace(page, rows=rows))",
        "cursors.after(page)",
        (f"{AUDIENCE}::test_a_page_is_encoded_once_and_everybody_gets_the_same_bytes",),
    ),
    Mutation(
        "nobody is cut off",
        "service/api/audience.py",
        "now - listener.sending_since > SEND_SECONDS",
        "now - listener.sending_since > math.inf",
        (f"{AUDIENCE}::test_who_does_not_take_what_is_sent_is_cut_off",),
    ),
    Mutation(
        "who is cut off keeps their connection",
        "service/api/stream.py",
        "(host, int(port))",
        "(host, port)",
        (f"{STREAM}::test_who_does_not_read_is_cut_off",),
    ),
    Mutation(
        "a stream keeps its turn",
        "service/api/stream.py",
        '        scope["state"].pop("end_turn", lambda: None)()\n',
        "",
        (f"{STREAM}::test_a_stream_takes_nobody_s_turn",),
    ),
    Mutation(
        "streams hear nothing of the end",
        "service/drain.py",
        "        ending.set()\n",
        "",
        (f"{STREAM}::test_streams_end_with_the_service",),
    ),
    Mutation(
        "the reader gives up when no store answers",
        "service/api/audience.py",
        "            except Exception as error:  # noqa: BLE001  whatever it is, the listeners wait for the next page",
        "            except KeyError as error:",
        (f"{WITHOUT}::test_without_redis_it_goes_on_and_without_both_it_waits",),
    ),
)
