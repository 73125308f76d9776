"""Many at once: numbers that are unique, edits that meet."""

from concurrent.futures import ThreadPoolExecutor

CREATES = 200


def test_200_parallel_creates_have_numbers_of_their_own(new_tenant):
    owner = new_tenant("together")
    owner.post("/templates/multi_branch_sales:install", {"samples": False})
    customer = owner.make("customer", name="Firm")["id"]

    def create(n):
        return owner.make("deal", title=f"Deal {n}", customer=customer)["number"]

    with ThreadPoolExecutor(32) as pool:
        numbers = list(pool.map(create, range(CREATES)))
    assert len(set(numbers)) == CREATES
    assert len(owner.rows("deal limit 1000")) == CREATES
    assert {int(n.rpartition("-")[2]) for n in numbers} == set(range(1, CREATES + 1)), "no gaps"

    deal = owner.get(f"/records/deal/{owner.rows('deal limit 1')[0]['id']}")
    owner.edit(deal, amount="100.00")
    stale = owner.call(
        "PATCH", f"/records/deal/{deal['id']}", 409, json={"fields": {"amount": "200.00"}},
        headers={"If-Match": f'"{deal["version"]}"'},
    )  # fmt: skip
    (clash,) = stale["conflicts"]
    assert (clash["field"], clash["mine"], clash["theirs"]) == ("amount", "200.00", "100.00")
