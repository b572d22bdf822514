"""Chaos over real processes: clients, a nemesis with a seeded schedule, a history, and a checker of what it shows."""
