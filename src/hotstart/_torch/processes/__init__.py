"""Private names about processes: their settings, and groups of them."""
