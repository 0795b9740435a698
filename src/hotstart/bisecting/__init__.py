"""Find the piece of a program that computes something else than the model does."""
