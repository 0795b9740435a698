"""Take what depends on weights alone out of a graph."""
