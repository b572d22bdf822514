"""What must not get slower, guarded by counts instead of a stopwatch."""
