"""Files of real systems through their connectors to records, and again: nothing is added twice."""

from pathlib import Path

import msgspec
import pytest

from tests.intake.staged import sorts
from tests.intake.test_intake import desk  # noqa: F401 - the fixture

SAMPLES = Path(__file__).resolve().parents[3] / "shared" / "samples"
PACKAGES = {
    "alex8bits": ("import", "offers"), "andrtechno": ("import", "offers"),
    "bogutski": ("import", "offers"),
}  # fmt: skip
STATEMENTS = [
    ("mt940", "mt940/zilverline__knab.txt"), ("camt", "camt/Subite-eu__2024-03-11.xml"),
    ("ofx", "ofx/OCA__test_ofx_iban.ofx"),
]  # fmt: skip
# What a person says of values that nobody has mapped yet.
TOLD = {
    "unit": "pcs",
    "tax": "-",
    "account": "create",
    "warehouse": "Склад Північ / North warehouse",
}

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not SAMPLES.exists(), reason="the samples are not part of the repository"),
]


async def take(desk, path, connector, source):  # noqa: F811
    """Import a file, mapping what it asks for, and import it again."""
    content = path.read_bytes()
    made = await desk.bring(content, source=source, connector=connector)
    if made.told.unmapped:
        told = {
            f"{u.what}:{u.value}".removesuffix(":"): TOLD[u.what]
            for u in made.told.unmapped if u.what in TOLD
        }  # fmt: skip
        mapping = msgspec.structs.replace(
            made.mapping, constants={**made.mapping.constants, **told}
        )
        made = await desk.bring(content, source=source, connector=connector, mapping=mapping)
    planned = sorts(made)
    done = await desk.approve(made)
    refused = [r.faults for r in await desk.rows(done, "faulty")]
    assert done.counts["refused"] == 0, refused[:3]
    assert planned.get("faulty", 0) == 0 and planned["new"], refused[:3]
    again = await desk.bring(content, source=source, connector=connector)
    assert sorts(again).keys() == {"unchanged"}, [
        (r.key, r.changes) for r in await desk.rows(again, "changed")
    ]
    return planned


@pytest.mark.parametrize("name", PACKAGES)
async def test_packages_of_1c(desk, name):  # noqa: F811
    for part in PACKAGES[name]:
        path = SAMPLES / "commerceml" / f"{name}__{part}.xml"
        planned = await take(desk, path, "commerceml", name)
        print(path.name, planned)


async def test_statements(desk):  # noqa: F811
    for connector, name in STATEMENTS:
        planned = await take(desk, SAMPLES / name, connector, name)
        print(name, planned)
