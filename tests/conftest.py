"""What all tests share: how many examples Hypothesis tries, and what is needed but missing.

Examples are 100, drawn alike each time, or 2,000 new ones (`make fuzz`). Alike, not the same:
Hypothesis also tries constants of the modules that happen to be imported.
"""

import os

import pytest
from hypothesis import settings

settings.register_profile("ordinary", max_examples=100, derandomize=True, deadline=None)
settings.register_profile("nightly", max_examples=2000, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ordinary"))


def need(reason: str) -> None:
    """Skip a test for want of what it needs of the machine or the build; in CI, fail."""
    if os.environ.get("GENLIB_SITE") == "required":
        pytest.fail(reason)
    pytest.skip(reason)
