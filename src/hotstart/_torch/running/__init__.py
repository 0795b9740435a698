"""What programs need that run."""
