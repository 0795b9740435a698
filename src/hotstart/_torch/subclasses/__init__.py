"""Private names about tensor subclasses."""
