import pytest
from support.stores import CONTEXT, ITEMS

from edgecal.cache import CaptureCache


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A store's bytes."""
    folder = tmp_path_factory.mktemp("whole")
    with CaptureCache(folder, CONTEXT) as cache:
        cache.write(ITEMS.items())
    return cache.path.name, cache.path.read_bytes()
