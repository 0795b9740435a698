"""Where compiled programs and pieces are kept, so that they are compiled once."""
