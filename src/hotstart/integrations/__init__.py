"""Helpers for libraries whose models hotstart compiles. Each imports its library itself."""
