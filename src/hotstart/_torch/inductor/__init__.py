"""What is private of Inductor."""
