"""Compile in other processes."""
