"""Make the site of the docs: stage pages, draw plots, and check what Zensical builds of them."""
