"""GET /leaderboard/stream: the top as it is, and as it changes; what it costs, and how it ends."""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from collections.abc import Iterator
from functools import partial

import pytest

from tests.load.memory import files, rss_kib

from .listening import listening
from .scrapes import scrape
from .serving import Service, serving, wait_until
from .shapes import PAGE, assert_problem
from .wire import request

END_SECONDS = 5.0


@pytest.fixture(scope="module", autouse=True)
def _people(service: Service) -> None:
    """A hundred and twenty users with the longest names and ids; the first ones are the best."""
    service.execute(
        "INSERT INTO users (id, username, rating)"
        " SELECT 'u' || n, rpad('player' || n, 32, 'x'), 2000 - n FROM generate_series(1, 120) AS n"
    )
    wait_until(service.is_mirrored)


@pytest.fixture
def lead(service: Service) -> int:
    """A rating above all others; the first user has the one before it."""
    best = service.get("/leaderboard?limit=1").json()["items"][0]["rating"]
    return int(best) + 1


@pytest.fixture(scope="module")
def other(service: Service) -> Iterator[Service]:
    """Another service of two workers over the same stores, with room for three streams and a heartbeat a second."""
    env = {"MAX_STREAMS": "3", "STREAM_HEARTBEAT_SECONDS": "1", "MAX_IN_FLIGHT": "2"}
    with serving(service.settings.database_url, service.settings.redis_url, workers=2, env=env) as running:
        wait_until(running.is_mirrored)
        yield running


@pytest.mark.parametrize("limit", [1, 3, 100])
def test_the_first_event_comes_at_once_and_is_the_page(service: Service, limit: int) -> None:
    """With the fields of a page, and nothing about it is different; `limit` is 10 unless it is given."""
    begun = time.monotonic()
    with listening(service, f"limit={limit}") as stream:
        first = stream.event()
    page = service.get(f"/leaderboard?limit={limit}").json()

    assert (200, "text/event-stream") == (stream.status, stream.headers["content-type"])
    assert first.at - begun < 1
    assert (PAGE, page) == (list(first.page), first.page)
    with listening(service, "") as stream:
        assert 10 == len(stream.event().page["items"])


def test_a_change_is_heard_within_a_second(service: Service, other: Service, lead: int) -> None:
    """Whichever process the write went through; and the streams of one page know it by one id."""
    with contextlib.ExitStack() as held:
        streams = [held.enter_context(listening(each)) for each in (service, service, other)]
        for stream in streams:
            stream.event()
        for turn, writer in enumerate((service, other)):
            begun = time.monotonic()
            writer.put(f"u{turn + 1}", lead + turn)
            heard = [stream.event() for stream in streams]

            assert {lead + turn} == {each.ratings[0] for each in heard}
            assert 1 == len({each.id for each in heard})
            assert max(each.at for each in heard) - begun < 1


def test_without_a_change_nothing_is_sent(service: Service) -> None:
    """Neither after a write that is not seen on the page, nor after one that changes nothing."""
    page = service.get("/leaderboard?limit=3").json()
    with listening(service) as stream:
        stream.event()
        service.put("u120", 150)
        service.put(page["items"][0]["id"], page["items"][0]["rating"])

        assert [] == stream.events(seconds=1)
    assert page == service.get("/leaderboard?limit=3").json()


def test_a_new_user_anywhere_changes_the_page(service: Service) -> None:
    """Because it tells how many there are."""
    with listening(service) as stream:
        before = stream.event().page
        service.created("somebody.else", rating=100)

        assert before | {"total": before["total"] + 1} == stream.event().page


def test_a_hundred_writes_are_at_most_four_events_a_second(service: Service, lead: int) -> None:
    """And the last event is of the last of them."""
    with listening(service, "limit=1") as stream:
        heard = [stream.event()]
        begun = time.monotonic()
        for turn in range(100):
            service.put("u3", lead + turn)
            time.sleep(max(begun + turn / 50 - time.monotonic(), 0))
        heard.append(stream.event())
        while heard[-1].ratings != [lead + 99]:
            heard.append(stream.event())

        assert 4 <= len(heard)
        # Whichever four follow one: a second later, but for how long each was on its way.
        assert all(later.at - sooner.at > 0.8 for sooner, later in zip(heard, heard[4:], strict=False))
        assert [] == stream.events(seconds=0.5)


def test_who_has_the_page_is_not_sent_it_again(service: Service, other: Service, lead: int) -> None:
    """By its id, whichever process it came from; what changes then is sent. Who names another page gets this one."""
    with listening(service) as stream:
        seen = stream.event()
    with listening(other, last_event_id=seen.id) as stream:
        assert [] == stream.events(seconds=0.6)
        service.put("u1", lead)
        assert lead == stream.event().ratings[0]
    with listening(other, last_event_id=seen.id) as stream:
        assert lead == stream.event().ratings[0]
    with listening(service, last_event_id="anything else") as stream:
        assert lead == stream.event().ratings[0]


def test_heartbeats_keep_it_alive(other: Service) -> None:
    """One a second here; and a browser is told when to come back."""
    with listening(other) as stream:
        stream.event()
        wait_until(lambda: len(stream.beats) == 3, seconds=5)

    assert 1.5 < stream.beats[2] - stream.beats[0] < 3
    (retry_ms,) = stream.retry_ms
    assert 1000 <= retry_ms <= 3000


# As any other answer


def test_the_head_is_as_on_any_answer(service: Service) -> None:
    """Ids, security headers, and the word to proxies that they must not wait for the end."""
    with listening(service, x_request_id="stream-1") as stream:
        headers = stream.headers

    page = service.get("/leaderboard").headers
    assert "stream-1" == headers["x-request-id"]
    assert ("no-cache", "no") == (headers["cache-control"], headers["x-accel-buffering"])
    same = ("content-security-policy", "referrer-policy", "x-content-type-options", "x-frame-options")
    assert {name: page[name] for name in same} == {name: headers[name] for name in same}


def test_whoever_answers_get_answers_head(service: Service) -> None:
    """At once, without a body, and without a stream."""
    answer = service.client.head("/leaderboard/stream")

    assert (200, "text/event-stream", b"") == (answer.status_code, answer.headers["content-type"], answer.content)
    assert 0 == scrape(service).value("ladder_streams_open")
    assert "GET, HEAD, OPTIONS" == service.client.options("/leaderboard/stream").headers["allow"]
    refused = service.post({}, "/leaderboard/stream")
    assert_problem(refused, "method-not-allowed")
    assert "GET, HEAD, OPTIONS" == refused.headers["allow"]


@pytest.mark.parametrize(
    ("query", "field"),
    [("limit=0", "limit"), ("limit=101", "limit"), ("limit=x", "limit"), ("limit=1&limit=1", "limit"), ("a=1", "a")],
)
def test_what_is_not_understood_is_refused(service: Service, query: str, field: str) -> None:
    """Before anything is streamed."""
    assert_problem(service.get(f"/leaderboard/stream?{query}"), "validation", field)


def test_it_is_one_request_to_the_rate_limit_and_a_page_elsewhere_may_listen(service: Service) -> None:
    """However long it lasts: the bucket fills again meanwhile. A refusal is as ever."""
    env = {"RATE_LIMIT_PER_SECOND": "1", "RATE_LIMIT_BURST": "3", "CORS_ALLOW_ORIGINS": "https://example.org"}
    with serving(service.settings.database_url, service.settings.redis_url, env=env) as limited:
        wait_until(lambda: limited.get("/leaderboard").headers["ratelimit-remaining"] == "2", seconds=10)
        with listening(limited, origin="https://example.org") as stream:
            stream.event()
            assert "1" == stream.headers["ratelimit-remaining"]
            assert "https://example.org" == stream.headers["access-control-allow-origin"]
            wait_until(lambda: limited.get("/leaderboard/stream?limit=x").status_code == 429, seconds=5)


# What it costs


def test_beyond_the_cap_it_is_refused(service: Service) -> None:
    """With 503 and when to come back; when one ends there is room again. The gauge tells how many there are."""
    env = {"MAX_STREAMS": "2"}
    with serving(service.settings.database_url, service.settings.redis_url, env=env) as small:
        with listening(small) as first, listening(small) as second:
            first.event()
            second.event()
            refused = small.get("/leaderboard/stream")
            assert_problem(refused, "unavailable")
            assert "1" == refused.headers["retry-after"]
            assert 2 == scrape(small).value("ladder_streams_open")
        wait_until(lambda: scrape(small).value("ladder_streams_open") == 0)
        with listening(small) as third:
            third.event()


def test_a_stream_takes_nobody_s_turn(other: Service) -> None:
    """Two requests at a time are served here; three streams are open, and more are not in flight than before."""
    with contextlib.ExitStack() as held:
        for _ in range(3):
            held.enter_context(listening(other)).event()

        assert {200} == {other.get("/leaderboard").status_code for _ in range(20)}
        wait_until(lambda: scrape(other).value("ladder_streams_open") == 3)
        # The scrape itself.
        assert 1 == scrape(other).value("ladder_http_requests_in_flight")
    wait_until(lambda: scrape(other).value("ladder_streams_open") == 0)
    assert 1 == scrape(other).value("ladder_http_requests_in_flight")
    assert not [line for line in other.logged() if line["event"] == "request" and line["level"] == "warning"]


def test_the_board_is_read_four_times_a_second_for_all(service: Service, lead: int) -> None:
    """Not once more for another listener or another limit; and while nobody listens it is not read at all."""

    def reads() -> float:
        return scrape(service).total("ladder_batch_size_count", name="pages")

    wait_until(lambda: scrape(service).value("ladder_streams_open") == 0)
    with contextlib.ExitStack() as held:
        begun, before = time.monotonic(), reads()
        streams = [held.enter_context(listening(service, f"limit={limit}")) for limit in range(1, 21)]
        for stream in streams:
            stream.event()
        sent = scrape(service).value("ladder_stream_events_total")
        service.put("u2", lead)
        for limit, stream in enumerate(streams, start=1):
            heard = stream.event()
            assert (limit, lead) == (len(heard.ratings), heard.ratings[0])
        time.sleep(1)
        assert reads() - before <= 4 * (time.monotonic() - begun) + 1
    assert sent is not None
    assert sent + 20 == scrape(service).value("ladder_stream_events_total")
    wait_until(lambda: scrape(service).value("ladder_streams_open") == 0)
    time.sleep(0.3)
    before = reads()
    time.sleep(0.6)
    assert before == reads()


def test_who_does_not_read_is_cut_off(service: Service, lead: int) -> None:
    """Their connection is closed and what waited for them is gone; others hear everything meanwhile."""
    before, kib = scrape(service).value("ladder_streams_cut_total"), rss_kib(service)
    open_files = files(service)
    with contextlib.ExitStack() as held:
        other = held.enter_context(listening(service, "limit=1"))
        other.event()
        deaf = []
        for _ in range(20):
            connection = held.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            connection.connect(("127.0.0.1", service.settings.port))
            connection.sendall(request("GET", "/leaderboard/stream?limit=100", last=False))
            deaf.append(connection)
        deadline = time.monotonic() + 50
        turn = 0
        while scrape(service).value("ladder_streams_cut_total") != (before or 0) + 20:
            turn += 1
            service.put("u5", lead + turn)
            assert lead + turn == other.event().ratings[0]
            assert time.monotonic() < deadline

        wait_until(lambda: files(service) <= open_files + 2, seconds=10)
        assert rss_kib(service) - kib < 32 * 1024


# How it ends


@pytest.mark.parametrize(("stop", "notice"), [(signal.SIGTERM, "0"), (signal.SIGTERM, "1"), (signal.SIGINT, "1")])
def test_streams_end_with_the_service(service: Service, stop: signal.Signals, notice: str) -> None:
    """As a whole answer ends, and with exit code 0 within five seconds; also where a client does not read."""
    env = {"DRAIN_SECONDS": notice}
    with contextlib.ExitStack() as held:
        ending = held.enter_context(
            serving(service.settings.database_url, service.settings.redis_url, workers=2, env=env)
        )
        streams = [
            held.enter_context(socket.create_connection(("127.0.0.1", ending.settings.port), timeout=END_SECONDS))
            for _ in range(4)
        ]
        for stream in streams:
            stream.sendall(request("GET", "/leaderboard/stream"))
        deaf = held.enter_context(socket.create_connection(("127.0.0.1", ending.settings.port)))
        deaf.sendall(request("GET", "/leaderboard/stream"))
        wait_until(lambda: scrape(ending).value("ladder_streams_open") == 5)
        begun = time.monotonic()
        ending._process.send_signal(stop)

        for stream in streams:
            assert b"".join(iter(partial(stream.recv, 65536), b"")).endswith(b"\r\n0\r\n\r\n")
        assert 0 == ending._process.wait(END_SECONDS)
        assert time.monotonic() - begun < END_SECONDS


def test_a_client_that_leaves_is_forgotten(service: Service) -> None:
    """At once, not when something is next sent to them."""
    with listening(service) as stream:
        stream.event()
        assert 1 == scrape(service).value("ladder_streams_open")
    wait_until(lambda: scrape(service).value("ladder_streams_open") == 0, seconds=2)
