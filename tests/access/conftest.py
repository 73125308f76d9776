"""A world for each test that changes one; the cluster is that of the run."""

import psycopg
import pytest

from tests.access import world as worlds

_count = iter(range(1, 10**9))


@pytest.fixture
async def world(db, dsns):
    def control():
        return psycopg.AsyncConnection.connect(
            dsns.superuser.replace("nexus_pool", "nexus_control")
        )

    return await worlds.build(db, control, f"access{next(_count)}")
