"""Settings that every test shares."""

from hypothesis import settings

# How long an example takes says more about the machine than about the code.
settings.register_profile("hotstart", deadline=None)
settings.load_profile("hotstart")
