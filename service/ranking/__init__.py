"""The policy: what a rank is, what a write means, where a read is answered from, how the mirror heals."""
