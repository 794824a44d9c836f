"""llama.cpp's source where it is at hand: real vocabularies and chat templates, which are not ours to keep."""

import os
from pathlib import Path

import pytest

VARIABLE = "EDGECAL_LLAMA_SOURCE"


def llama_models_folder():
    """The folder `models` of llama.cpp's source. Without one the test is skipped, or fails where CI is set."""
    given = os.environ.get(VARIABLE)
    if given is None:
        reason = (
            f"no source of llama.cpp: set {VARIABLE} to its folder (`python tests/tools/building.py` gets it)"
        )
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    folder = next(
        (path for path in (Path(given, "models"), Path(given, "vendor/llama.cpp/models")) if path.is_dir()),
        None,
    )
    assert folder is not None, f"{VARIABLE} is {given}, which holds no folder `models`"
    return folder
