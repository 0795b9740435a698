"""Which sizes a graph and a unit serve: what is left over is captured or compiled again."""
