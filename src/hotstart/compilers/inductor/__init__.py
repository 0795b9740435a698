"""Compile with Inductor, into data that needs no Inductor to run."""
