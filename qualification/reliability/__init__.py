"""Faults that a store has to survive, with real processes; `make reliability` runs all of it."""
