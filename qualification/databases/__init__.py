"""torch's own databases of operators, modules and examples, compiled, saved and loaded."""
