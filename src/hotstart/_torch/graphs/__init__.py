"""What is private of captured graphs."""
