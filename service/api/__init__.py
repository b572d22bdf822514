"""The HTTP rim: parse, answer, and turn domain errors into problem documents. Knows no store."""
