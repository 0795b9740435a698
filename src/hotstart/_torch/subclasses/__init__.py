"""What is private of tensor subclasses."""
