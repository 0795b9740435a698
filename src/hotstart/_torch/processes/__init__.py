"""What is private of processes: their settings, and groups of them."""
