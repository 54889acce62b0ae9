"""How many examples Hypothesis tries: the same 100 each time, or 2,000 new ones (`make fuzz`)."""

import os

from hypothesis import settings

settings.register_profile("ordinary", max_examples=100, derandomize=True, deadline=None)
settings.register_profile("nightly", max_examples=2000, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ordinary"))
