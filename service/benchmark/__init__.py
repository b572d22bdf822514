"""What `ladder benchmark` measures, and how; nothing that serves imports it."""
