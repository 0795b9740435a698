"""What is private of Dynamo: traces, and what they read."""
