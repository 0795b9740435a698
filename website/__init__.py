"""The site of the docs: pages are staged, plots drawn, then Zensical builds and the result is checked."""
