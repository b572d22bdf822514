"""
PostgreSQL and Valkey from wheels, for a laptop, a test run or a demo: started, used and stopped as one pair.

    with start_pair(Path(".ladder")) as pair:
        serve(pair.database_url, pair.redis_url)

Both keep their data over restarts and end with the process that started them, however that one ends.
"""

from service.embedded.pair import EmbeddedPair, open_pair, running_pair, start_pair
from service.embedded.programs import EmbeddedError

__all__ = ["EmbeddedError", "EmbeddedPair", "open_pair", "running_pair", "start_pair"]
