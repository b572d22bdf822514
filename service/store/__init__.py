"""Two adapters that speak domain verbs: Postgres (the ledger) and Redis (the mirror and the objects)."""
