"""Programs that measure; run them as scripts."""
