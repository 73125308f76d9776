"""What every table of a placement must have, read from the catalogue; and the two walls in SQL."""

import psycopg
import pytest

from appliance.tenancy.servers import connect
from appliance.tenancy.tables import NOT_COPIED, load_tables
from tests.tenancy.rows import make, sums

pytestmark = pytest.mark.anyio

# Their rows change only in a transaction that moves a stream's head as well (or may leave late).
BEHIND_STREAM = {
    "change", "record", "record_link", "unique_claim", "pending_ref", "number_series",
    "stream_vector", "outbox", "command", "entry", "turnover",
}  # fmt: skip
APPEND_ONLY = {"change", "audit", "audit_seal"}
WITH_TENANT = (
    "FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') "
    "AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'tenant_id')"
)


@pytest.fixture
def placement(dsns):
    with psycopg.connect(dsns.superuser, autocommit=True) as conn:
        yield conn


def names(conn, text):
    return {row[0] for row in conn.execute(text).fetchall()}


def test_every_table_has_its_tenant_first_and_forced_row_security(placement):
    everything = names(
        placement,
        "SELECT relname FROM pg_class c WHERE relnamespace = 'public'::regnamespace "
        "AND relkind IN ('r', 'p')",
    )
    tables = names(placement, f"SELECT c.relname {WITH_TENANT}")
    assert everything - tables == {"alembic_version"}
    good = names(
        placement,
        f"SELECT c.relname {WITH_TENANT} AND c.relrowsecurity AND c.relforcerowsecurity "
        "AND EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polcmd = '*' "
        "AND pg_get_expr(p.polqual, p.polrelid) LIKE '%nexus.tenant%') "
        "AND EXISTS (SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = c.oid "
        "AND a.attnum = i.indkey[0] WHERE i.indrelid = c.oid AND i.indisprimary "
        "AND a.attname = 'tenant_id')",
    )
    assert good == tables


async def test_every_table_is_copied_or_named_with_its_reason(placement, servers):
    tables = names(placement, f"SELECT c.relname {WITH_TENANT}")
    async with connect(servers.dsn("nexus_pool")) as conn:
        copied = {table.name for table in await load_tables(conn)}
    assert copied | set(NOT_COPIED) == tables
    assert not copied & set(NOT_COPIED)


async def test_a_new_table_is_copied_without_a_word_from_us(placement, servers):
    placement.execute(
        "CREATE TABLE brand_new (tenant_id uuid, id int, PRIMARY KEY (tenant_id, id))"
    )
    try:
        async with connect(servers.dsn("nexus_pool")) as conn:
            placement.execute("ALTER TABLE brand_new OWNER TO nexus_owner")
            assert "brand_new" in {table.name for table in await load_tables(conn)}
    finally:
        placement.execute("DROP TABLE brand_new")


def test_every_table_is_behind_the_fence(placement):
    tables = names(placement, f"SELECT c.relname {WITH_TENANT}") - set(NOT_COPIED)
    fenced = names(
        placement, "SELECT tgrelid::regclass::text FROM pg_trigger WHERE tgname = 'fence'"
    )
    assert fenced | BEHIND_STREAM == tables
    assert not fenced & BEHIND_STREAM


def test_the_application_role_may_no_more_than_it_needs(placement):
    tables = names(placement, f"SELECT c.relname {WITH_TENANT}")
    rights = placement.execute(
        "SELECT table_name, privilege_type FROM information_schema.table_privileges "
        "WHERE grantee IN ('nexus_app', 'PUBLIC') AND table_schema = 'public'"
    ).fetchall()
    assert {r for _, r in rights} <= {"SELECT", "INSERT", "UPDATE", "DELETE"}
    assert not {(t, r) for t, r in rights if t in APPEND_ONLY and r in ("UPDATE", "DELETE")}
    columns = placement.execute(
        "SELECT table_name FROM information_schema.column_privileges "
        "WHERE grantee = 'nexus_app' AND privilege_type = 'UPDATE'"
    ).fetchall()
    assert not {t for (t,) in columns} & APPEND_ONLY
    assert {t for t, _ in rights} <= tables
    (role,) = placement.execute(
        "SELECT rolsuper, rolbypassrls, rolcreaterole, rolcreatedb FROM pg_roles "
        "WHERE rolname = 'nexus_app'"
    ).fetchall()
    assert role == (False, False, False, False)
    owned = "SELECT count(*) FROM pg_class WHERE relowner = 'nexus_app'::regrole"
    assert placement.execute(owned).fetchone() == (0,)
    member = "SELECT roleid::regrole::text FROM pg_auth_members WHERE member = 'nexus_app'::regrole"
    # A purge ends with a checkpoint: before it the files of dropped tables are still there.
    assert placement.execute(member).fetchall() == [("pg_checkpoint",)]


async def test_without_a_tenant_every_table_reads_empty(dsns, servers, slug):
    made = await make(servers, slug)
    assert all(end.rows for end in (await sums(servers, made.target, made.id)).values())
    with psycopg.connect(dsns.pool_dsn, autocommit=True) as app:
        tables = names(app, f"SELECT c.relname {WITH_TENANT}")
        for setting in (None, ""):
            if setting is not None:
                app.execute("SELECT set_config('nexus.tenant', %s, false)", (setting,))
            seen = {t: app.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in tables}
            assert not any(seen.values()), seen


async def test_another_tenant_is_neither_read_nor_written(dsns, servers, slug):
    mine, other = await make(servers, slug), await make(servers, slug + "-b")
    with psycopg.connect(dsns.pool_dsn, autocommit=True) as app:
        app.execute("SELECT set_config('nexus.tenant', %s, false)", (str(mine.id),))
        # No condition at all in the query: the second wall alone.
        assert app.execute("SELECT DISTINCT tenant_id FROM record").fetchall() == [(mine.id,)]
        found = app.execute("DELETE FROM record WHERE tenant_id = %s", (other.id,))
        assert found.rowcount == 0
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            app.execute("INSERT INTO number_series VALUES (%s, 'X', '', 1)", (other.id,))
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            app.execute("UPDATE number_series SET tenant_id = %s", (other.id,))
        with pytest.raises(psycopg.errors.FeatureNotSupported):
            app.execute("COPY number_series FROM STDIN")
        with app.cursor().copy("COPY (SELECT tenant_id FROM record) TO STDOUT") as copy:
            assert {row[0] for row in copy.rows()} == {str(mine.id)}
