"""Programs that measure: what is served, what is right, what is survived."""
