"""The first call of a model, which sets up what later calls find: made once before a trace."""
