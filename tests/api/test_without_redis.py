"""Redis is away, comes, goes and comes back: answers are right throughout, and the mirror heals by itself."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import httpx
import pytest

from service.model import UserId
from tests.conftest import Stores
from tests.ranking.equality import ledger_board, mirror_board
from tests.ranking.model import board
from tests.servers.own_redis import OwnRedis, own_redis

from .serving import Service, serving, wait_until
from .shapes import RATED, USER, assert_problem, assert_ranked_by, fresh_name, wire_row

CROWD = 2500
"""Users of the tests that watch a load: it takes several pages."""
SETTLED = 60
"""Answers in a row from Redis after which the mirror counts as back."""
PATIENCE = 1.5
"""Seconds within which everything is answered: a store that is away must not be waited for."""


class Model:
    """What the board must be, kept in step with every write: `tests.ranking.model`, fast enough to ask often."""

    def __init__(self, service: Service) -> None:
        self._users = {str(user.id): (user.username, user.rating) for user in service.rows().values()}

    def write(self, user: dict[str, object]) -> None:
        """Take over what an answer says of a user."""
        self._users[str(user["id"])] = (str(user["username"]), int(str(user["rating"])))

    def ids(self) -> list[str]:
        """Everybody's id."""
        return list(self._users)

    def rows(self) -> list[dict[str, object]]:
        """The whole board as the wire shows it."""
        ordered = sorted((-rating, name.encode(), user_id) for user_id, (name, rating) in self._users.items())
        rows: list[dict[str, object]] = []
        for position, (rating, name, user_id) in enumerate(ordered, start=1):
            rank = rows[-1]["rank"] if rows and rows[-1]["rating"] == -rating else position
            rows.append(
                {"position": position, "rank": rank, "id": user_id, "username": name.decode(), "rating": -rating}
            )
        return rows


class Watcher:
    """Writes and reads in turn, one after the other, so that at each answer it is known what is right."""

    def __init__(self, service: Service, seed: int) -> None:
        self._service = service
        self._dice = random.Random(seed)
        self.model = Model(service)
        self.outcomes: set[str] = set()
        self.sources: list[str] = []

    def write(self) -> None:
        """Give somebody another rating; the answer's places are right, or null if the mirror could not take it."""
        user_id = self._dice.choice(self.model.ids())
        before = {row["id"]: row for row in self.model.rows()}[user_id]
        answer = self._service.put(user_id, self._dice.randint(100, 5000))
        changed = answer.json()
        assert 200 == answer.status_code
        assert before["rating"] == changed["previous_rating"]
        self.model.write(changed)
        after = {row["id"]: row for row in self.model.rows()}[user_id]
        outcome = answer.headers["x-mirror-write"]
        self.outcomes.add(outcome)

        assert outcome in ("applied", "superseded", "pending")
        assert changed["rank"] in ((None,) if outcome == "pending" else (after["rank"],))
        assert changed["position"] in ((None,) if outcome == "pending" else (after["position"],))
        assert changed["previous_rank"] in (None, before["rank"])

    def read(self) -> None:
        """Look somebody up, turn a page and search; every rank and position must be the model's."""
        rows = self.model.rows()
        row = self._dice.choice(rows)
        self._check(self._service.get(f"/users/{row['id']}"), [row])
        offset = self._dice.randrange(len(rows))
        turned = self._service.get(f"/leaderboard?limit=7&offset={offset}")
        self._check(turned, rows[offset : offset + 7])
        assert len(rows) == turned.json()["total"]
        if cursor := turned.json()["next_cursor"]:
            self._check(self._service.get(f"/leaderboard?limit=5&cursor={cursor}"), rows[offset + 7 : offset + 12])
        self._check(self._service.get(f"/users/search?username={row['username']}&limit=1"), [row])

    def _check(self, answer: httpx.Response, expected: list[dict[str, object]]) -> None:
        assert 200 == answer.status_code, answer.text
        shown = answer.json().get("items", [answer.json()])
        source = answer.headers["x-rank-source"]
        self.sources.append(source)

        assert expected == [{field: row[field] for field in expected[0]} for row in shown], source
        assert_ranked_by(source, answer.headers)

    def until_mirrored(self) -> None:
        """Go on, a write to every few reads, until Redis has answered for a while; then the stores are equal."""
        deadline, begun = time.monotonic() + 20, len(self.sources)
        while len(self.sources) < begun + SETTLED or set(self.sources[-SETTLED:]) != {"redis"}:
            assert time.monotonic() < deadline, "the mirror did not come back"
            self.write()
            for _ in range(3):
                self.read()
        expected, versions = ledger_board(self._service.settings)
        mirrored, users, size = mirror_board(self._service.settings)

        assert expected == mirrored
        assert versions == users
        assert len(mirrored) == size


@pytest.fixture(scope="module")
def alone(fresh_database: str) -> Iterator[Service]:
    """A service that has never seen its Redis."""
    with own_redis() as server, serving(fresh_database, server.url) as running:
        yield running


@pytest.fixture
def server() -> Iterator[OwnRedis]:
    """A Redis that is not there yet."""
    with own_redis() as own:
        yield own


@pytest.fixture(scope="module")
def crowd(stores: Stores) -> Iterator[tuple[Service, OwnRedis]]:
    """A service with many users, and its own Redis."""
    name = stores.create(stores.template)
    with own_redis() as own, serving(stores.url(name), own.url) as running:
        running.execute(
            "INSERT INTO users (id, username, rating) SELECT 'id' || n, 'Player' || n,"
            f" CASE WHEN n % 4 = 0 THEN 1500 ELSE 100 + n * 97 % 4901 END FROM generate_series(1, {CROWD}) AS n"
        )
        yield running, own
    stores.drop(name)


@pytest.fixture
def crowded(crowd: tuple[Service, OwnRedis]) -> tuple[Service, OwnRedis]:
    """The same at rest: Redis is up, and the mirror holds everybody."""
    running, own = crowd
    own.start()
    wait_until(running.is_mirrored)
    return crowd


def test_the_model_is_the_model(alone: Service) -> None:
    """The fast one here and the ten-line reference agree."""
    for number in range(10):
        alone.created(fresh_name(), rating=1500 + number % 3)

    assert [wire_row(row) for row in board(alone.rows())] == Model(alone).rows()


# Never there


def test_an_empty_board_has_no_rows(database_url: str, server: OwnRedis) -> None:
    """Nothing, of nobody, and no cursor: before Redis is there and after."""
    empty = {"items": [], "total": 0, "next_cursor": None}
    with serving(database_url, server.url) as running:
        for query in ("", "?limit=1000", "?offset=5"):
            assert empty == running.get(f"/leaderboard{query}").json()
        server.start()
        wait_until(running.is_mirrored)
        for query in ("", "?limit=1000", "?offset=5"):
            assert empty == running.get(f"/leaderboard{query}").json()


def test_a_creation_is_durable_without_redis(alone: Service) -> None:
    """201 with everything that Postgres knows, null for what only the mirror would, and a word about why."""
    answer = alone.post({"username": fresh_name(), "rating": 1700})
    user = answer.json()

    assert 201 == answer.status_code
    assert USER == list(user)
    assert (None, None) == (user["rank"], user["position"])
    assert "pending" == answer.headers["x-mirror-write"]
    assert f'"v{user["version"]}"' == answer.headers["etag"]
    assert 1700 == alone.rows()[UserId(user["id"])].rating


def test_a_new_rating_is_durable_without_redis(alone: Service) -> None:
    """200, as above."""
    user = alone.created(fresh_name(), rating=1700)
    answer = alone.put(str(user["id"]), 1800)
    changed = answer.json()

    assert 200 == answer.status_code
    assert RATED == list(changed)
    assert (None, None, None) == (changed["rank"], changed["position"], changed["previous_rank"])
    assert (1800, 1700) == (changed["rating"], changed["previous_rating"])
    assert "pending" == answer.headers["x-mirror-write"]
    assert 1800 == alone.rows()[UserId(str(user["id"]))].rating


def test_refusals_are_the_same_without_redis(alone: Service) -> None:
    """Names, ids, versions and existence are Postgres's to judge."""
    user = alone.created(fresh_name(), id=fresh_name("id"))

    assert_problem(alone.post({"username": str(user["username"]).upper()}), "username-taken")
    assert_problem(alone.post({"username": fresh_name(), "id": user["id"]}), "id-taken")
    assert_problem(alone.put(str(user["id"]), 1500, If_Match='"v0"'), "precondition-failed")
    assert_problem(alone.put("nobody", 1500), "not-found")
    assert_problem(alone.get("/users/nobody"), "not-found")
    assert_problem(alone.put(str(user["id"]), 99), "validation", "rating")


def test_postgres_ranks_without_redis(alone: Service) -> None:
    """Every route that shows ranks shows the right ones, says whence it has them, and is not slow about it."""
    for number in range(20):
        alone.created(fresh_name("tied"), rating=2000 + number % 4)
    watcher = Watcher(alone, seed=1)
    for _ in range(20):
        watcher.write()
        begun = time.monotonic()
        watcher.read()

        assert time.monotonic() - begun < 4 * PATIENCE
    assert {"postgres"} == set(watcher.sources)
    assert {"pending"} == watcher.outcomes


@pytest.mark.parametrize("offset", [0, 1000, 2**31, 2**53 - 1])
@pytest.mark.parametrize("limit", [1, 1000])
def test_bounds_hold_without_redis(alone: Service, limit: int, offset: int) -> None:
    """The longest page and the farthest offset, which is beyond the end: the model's rows, and the true total."""
    answer = alone.get(f"/leaderboard?limit={limit}&offset={offset}")
    rows = Model(alone).rows()

    assert 200 == answer.status_code
    assert (rows[offset : offset + limit], len(rows)) == (answer.json()["items"], answer.json()["total"])
    assert (offset + limit >= len(rows)) == (answer.json()["next_cursor"] is None)


def test_writes_are_answered_soon_without_redis(alone: Service) -> None:
    begun = time.monotonic()
    alone.created(fresh_name())

    assert time.monotonic() - begun < PATIENCE


def test_a_search_that_finds_nobody_claims_no_mirror(alone: Service) -> None:
    """No store ranked anything; least of all the one that is away."""
    answer = alone.get("/users/search?username=nobodyhere")

    assert (200, {"items": []}) == (answer.status_code, answer.json())
    assert "redis" != answer.headers.get("x-rank-source")


def test_tags_work_without_redis(alone: Service) -> None:
    """304 for whoever has the user as they are."""
    user_id = alone.created(fresh_name())["id"]
    tag = alone.get(f"/users/{user_id}").headers["etag"]

    assert 304 == alone.get(f"/users/{user_id}", If_None_Match=tag).status_code


def test_health_is_degraded_without_redis(alone: Service) -> None:
    """200, because reads are served; what is known of the mirror is that it is not ready."""
    answer = alone.get("/health")
    health = answer.json()

    assert (200, "degraded") == (answer.status_code, health["status"])
    assert ("up", "down") == (health["postgres"]["status"], health["redis"]["status"])
    assert health["mirror"]["ready"] is False
    assert 200 == alone.get("/health/ready").status_code
    assert 200 == alone.get("/health/live").status_code


# Coming, going, coming back


def test_the_mirror_is_filled_when_redis_comes(database_url: str, server: OwnRedis) -> None:
    """A service that started without it takes it in by itself; every answer meanwhile is right."""
    with serving(database_url, server.url) as running:
        for number in range(40):
            running.created(fresh_name("early"), rating=1500 + number % 7)
        watcher = Watcher(running, seed=2)
        watcher.read()
        server.start()
        watcher.until_mirrored()

    assert "postgres" == watcher.sources[0]
    assert {"pending", "applied"} == watcher.outcomes


def test_a_cursor_outlives_the_store_that_it_came_from(crowded: tuple[Service, OwnRedis]) -> None:
    """It names a point of the order, which both stores know."""
    running, server = crowded
    rows = Model(running).rows()
    first = running.get("/leaderboard?limit=300")
    server.kill()
    second = running.get(f"/leaderboard?limit=300&cursor={first.json()['next_cursor']}")
    server.start()
    wait_until(running.is_mirrored)
    third = running.get(f"/leaderboard?limit=300&cursor={second.json()['next_cursor']}")

    assert ["redis", "postgres", "redis"] == [page.headers["x-rank-source"] for page in (first, second, third)]
    assert rows[:900] == [row for page in (first, second, third) for row in page.json()["items"]]


@pytest.mark.parametrize("what_is_kept", ["nothing", "an old snapshot", "the last snapshot"])
def test_the_mirror_heals_when_redis_comes_back(crowded: tuple[Service, OwnRedis], what_is_kept: str) -> None:
    """Killed while it is written to, and back: from the kill to the end no answer is wrong, and then both are equal."""
    running, server = crowded
    watcher = Watcher(running, seed=3)
    server.save()
    if what_is_kept == "an old snapshot":
        for _ in range(30):
            watcher.write()
    server.kill()
    for _ in range(15):
        watcher.write()
        watcher.read()
    assert "pending" in watcher.outcomes
    assert "postgres" in watcher.sources
    if what_is_kept == "nothing":
        server.forget()
    server.start()
    watcher.until_mirrored()


def test_a_hung_redis_is_not_waited_for(crowded: tuple[Service, OwnRedis]) -> None:
    """It takes requests and answers none: Postgres does, soon; what it carries out late does no harm."""
    running, server = crowded
    watcher = Watcher(running, seed=5)
    with server.paused():
        begun = time.monotonic()
        watcher.write()
        assert time.monotonic() - begun < PATIENCE
        begun = time.monotonic()
        watcher.read()
        assert time.monotonic() - begun < 4 * PATIENCE
    watcher.until_mirrored()

    assert "pending" in watcher.outcomes
    assert "postgres" in watcher.sources


def test_a_flushed_redis_is_noticed(crowded: tuple[Service, OwnRedis]) -> None:
    """Emptied by hand while it serves: from the next answer on, no rank comes from what is gone."""
    running, server = crowded
    watcher = Watcher(running, seed=4)
    watcher.read()
    server.flush()
    watcher.until_mirrored()

    assert "redis" == watcher.sources[0]
