"""Random programs, eager against hotstart, so that wrong numbers are found before users find them."""
