"""A place that keeps compiled programs and pieces, so that they are compiled once."""
