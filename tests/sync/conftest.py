"""A second node beside the one of the run."""

import pytest

from tests.http.conftest import valkey_url
from tests.sync import pair as pairs

__all__ = ["valkey_url"]


@pytest.fixture(scope="session")
def there(dsns):
    return pairs.make_databases(dsns)


@pytest.fixture
async def pair(tenant, there, valkey_url, tmp_path):
    async with pairs.joined(tenant, there, valkey_url, tmp_path) as found:
        yield found
