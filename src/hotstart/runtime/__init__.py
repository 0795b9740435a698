"""Run: one decision on sizes, then straight-line calls. Imports nothing that compiles."""
