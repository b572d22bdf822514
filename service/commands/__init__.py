"""What `ladder` does: a file a subcommand, each with `run(options)`, which returns the exit code."""
