"""Deals move by the rules of their pipeline, and only so."""

import pytest

from tests.http.test_door import assert_problem
from tests.http.test_prices import API, Shop
from tests.http.test_modules import owner_of
from tests.install.firm import make_firm

pytestmark = pytest.mark.anyio


@pytest.fixture
async def shop(app, db, dsns):
    firm = await make_firm(db, dsns, "multi_branch_sales")
    return Shop(await owner_of(app, firm), firm)


async def pipeline(shop):
    """Three steps in a row, then won or lost; an offer needs an amount, a loss its reason."""
    found = await shop.new("pipeline", name="Projects", order=9)
    names = (("Idea", "open", None), ("Offer", "open", ["amount"]), ("Won", "won", None),
             ("Lost", "lost", ["lost_reason"]))  # fmt: skip
    steps = {}
    for n, (name, class_, needs) in enumerate(names):
        fields = {"pipeline": found, "name": name, "class": class_, "order": n,
                  "probability": n * 30, "needs": needs}  # fmt: skip
        steps[name] = await shop.make("stage", **{k: v for k, v in fields.items() if v is not None})
    await shop.edit(steps["Idea"], next=[steps["Offer"]["id"], steps["Lost"]["id"]])
    return found, {name: step["id"] for name, step in steps.items()}


async def refused(shop, deal, code, **fields):
    answer = await shop.client.patch(
        f"{API}/records/deal/{deal['id']}", json={"fields": fields},
        headers={"If-Match": f'"{deal["version"]}"'},
    )  # fmt: skip
    assert_problem(answer, 422)
    (fault,) = answer.json()["errors"]
    assert fault["code"] == code
    return fault


async def test_moves_by_the_rules(shop):
    of, steps = await pipeline(shop)
    customer = await shop.new("customer", name="Firm")
    deal = await shop.make("deal", title="Hall", customer=customer, pipeline=of)
    assert deal["fields"]["stage"] == steps["Idea"], "a new deal stands at the first step"
    assert deal["fields"]["probability"] == 0 and deal["fields"]["stage_since"]
    denied = await refused(shop, deal, "move_denied", stage=steps["Won"])
    assert denied["detail"] in ("From here it goes to: Offer, Lost.",
                                "From here it goes to: Lost, Offer.")  # fmt: skip
    missing = await refused(shop, deal, "needed_here", stage=steps["Offer"])
    assert missing["pointer"] == "/fields/amount"
    offer = await shop.edit(deal, stage=steps["Offer"], amount="900.00")
    assert offer["fields"]["probability"] == 30
    assert offer["fields"]["stage_since"] > deal["fields"]["stage_since"]
    for text, expected in (("", 4), ("not ", 0)):
        asked = {"q": f"deal where {text}stage_since within last 14 days"}
        answer = (await shop.client.get(f"{API}/query", params=asked)).json()
        assert len(answer["rows"]) == expected, "three of the samples and this one"
    await refused(shop, offer, "needed_here", stage=steps["Lost"])
    typed = await shop.edit(offer, stage=steps["Won"], probability=95)
    assert typed["fields"]["probability"] == 95
    assert_problem(
        await shop.client.post(
            f"{API}/records/deal",
            json={"fields": {"title": "Lost at once", "customer": customer, "stage": steps["Lost"]}},
        ), 422,
    )  # fmt: skip


async def test_pipelines_stay_apart(shop):
    of, steps = await pipeline(shop)
    customer = await shop.new("customer", name="Firm")
    usual = await shop.make("deal", title="Chairs", customer=customer)
    first = await shop.first('stage where name = "Новий / New"')
    assert usual["fields"]["stage"] == first["id"], "the first pipeline is the usual one"
    taken = await shop.edit(usual, stage=steps["Idea"])
    assert taken["fields"]["pipeline"] == of, "a deal goes over with its stage"
    back = await shop.edit(taken, pipeline=usual["fields"]["pipeline"])
    assert back["fields"]["stage"] == first["id"], "and stands at the first step of another one"
    await refused(shop, back, "other_pipeline", pipeline=of, stage=first["id"])
    history = await shop.client.get(f"{API}/records/deal/{usual['id']}/history")
    undone = await shop.client.post(
        f"{API}/changes/{history.json()['entries'][0]['change_set']}/undo"
    )
    assert undone.status_code == 200, undone.text
    now = (await shop.client.get(f"{API}/records/deal/{usual['id']}")).json()
    assert now["fields"]["stage"] == steps["Idea"]
    assert now["fields"]["stage_since"] == taken["fields"]["stage_since"]
