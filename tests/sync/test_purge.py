import pytest
from appliance.sync.scrub import scrub
pytestmark = pytest.mark.anyio
async def test_scrub(db, tenant):
    assert await scrub(db, tenant.id)
