"""Private names for programs that run."""
