"""What a trace assumed of the model and of Python: collected, described, and compared later."""
