"""Random programs, eager against hotstart: compositions of operators that nobody wrote."""
