"""One document of what happened in a build or a load, and how it is shown."""
