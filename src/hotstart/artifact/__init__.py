"""One file: its bytes, its records, where it fits and who vouches for it."""
