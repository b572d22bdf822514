"""What `scripts/benchmark.py` is made of; nothing in the product imports it."""
