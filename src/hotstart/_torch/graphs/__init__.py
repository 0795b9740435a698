"""Private names for captured graphs."""
