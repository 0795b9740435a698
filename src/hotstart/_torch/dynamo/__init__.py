"""Private names of Dynamo: traces, and what they read."""
