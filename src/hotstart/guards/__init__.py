"""Guards: what a trace assumed of the model and of Python, to be compared later."""
