"""What other leaderboards get wrong, by a run of theirs, and this one does not."""
