"""Trace a repeated block once, and take its nodes down again for others."""
