"""Compare units with the operators they were made from."""
