"""Mutations of the reads that compare: neighbours, lists, histograms, percentiles."""

from __future__ import annotations

from .mutation import Mutation

STANDINGS = "tests/ranking/test_standings.py"
AGREED, WIDE = f"{STANDINGS}::test_redis_sql_and_model_agree", f"{STANDINGS}::test_they_agree_inside_a_wide_tie"

MUTATIONS = (
    Mutation(
        "a window ends with the board",
        "lua/neighbors.lua",
        "math.min(place - radius, size - 2 * radius - 1)",
        "place - radius",
        (AGREED,),
    ),
    Mutation(
        "a window begins at the first row's equals",
        "lua/neighbors.lua",
        'redis.call("ZCOUNT", board_key, "(" .. rows[2], "+inf")',
        'redis.call("ZCOUNT", board_key, rows[2], "+inf")',
        (AGREED,),
    ),
    Mutation(
        "a window of Postgres ends with the board",
        "service/store/queries.sql",
        "greatest(0, least(above.users + tied.users - %(radius)s, total.users - 2 * %(radius)s - 1)) AS before",
        "greatest(0, above.users + tied.users - %(radius)s) AS before",
        (AGREED,),
    ),
    Mutation(
        "equals of a list count as higher",
        "lua/rows_of.lua",
        'redis.call("ZCOUNT", board_key, "(" .. score, "+inf")',
        'redis.call("ZCOUNT", board_key, score, "+inf")',
        (AGREED,),
    ),
    Mutation(
        "one who is not there shifts a list",
        "lua/rows_of.lua",
        '        answer[last + 1], answer[last + 2], answer[last + 3], answer[last + 4] = "", "", "", ""\n',
        "",
        (AGREED,),
    ),
    Mutation(
        "whoever is on the way to the mirror is not listed",
        "service/ranking/standings.py",
        "if not all(isinstance(found, NotFound) for found in looked_up):",
        "if False:",
        (f"{STANDINGS}::test_a_user_on_the_way_to_the_mirror_is_shown_by_every_read",),
    ),
    Mutation(
        "the last bucket goes on",
        "lua/histogram.lua",
        "math.min(from + width - 1, high)",
        "from + width - 1",
        (AGREED,),
    ),
    Mutation(
        "a bucket has those of all before it",
        "lua/histogram.lua",
        "    below = reached_to\n",
        "",
        (WIDE,),
    ),
    Mutation(
        "the first bucket has those below it",
        "lua/histogram.lua",
        'local below = low > 0 and redis.call("ZCOUNT", board_key, "-inf", "(" .. low) or 0',
        "local below = 0",
        (AGREED,),
    ),
    Mutation(
        "the highest bucket is above itself",
        "lua/histogram.lua",
        'redis.call("ZCOUNT", board_key, "(" .. high, "+inf")',
        'redis.call("ZCOUNT", board_key, high, "+inf")',
        (AGREED,),
    ),
    Mutation(
        "a quantile is that of the next user",
        "lua/histogram.lua",
        "math.ceil(size * percent / 100) - 1",
        "math.floor(size * percent / 100)",
        (AGREED,),
    ),
    Mutation(
        "a percentile is without oneself",
        "service/ranking/answers.py",
        "round(100 * (total - above) / total, 2)",
        "round(100 * (total - above - 1) / total, 2)",
        (f"{STANDINGS}::test_equal_ratings_have_equal_percentiles",),
    ),
)
