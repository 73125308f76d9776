"""`nexus query` prints as many rows as were asked for."""

import pytest

from appliance.base.settings import Settings
from appliance.cli.node import Opened
from appliance.cli.query import _print
from tests.tenants import create

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("text", "limit", "rows"),
    [("deal sort title limit 2", 1_000, 2), ("deal", 1_000, 70), ("deal", 60, 60), ("deal limit 3", 2, 2)],
)  # fmt: skip
async def test_the_limit_of_the_query_counts(tenant, capsys, text, limit, rows):
    await tenant.add_kind("deal", [("title", "text")])
    await tenant.apply(*(create("deal", title=f"{n:03}") for n in range(70)))
    slug = tenant.db.routes.of(tenant.id).slug
    node = Opened(Settings(), None, tenant.db, None, 1)
    capsys.readouterr()
    await _print(node, slug, text, limit)
    assert capsys.readouterr().out.count('"kind":"deal"') == rows
