"""Many at once: numbers that are unique, edits that meet."""

from concurrent.futures import ThreadPoolExecutor

CREATES = 200
IN_STOCK, SELLERS = 10, 24


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


def test_nobody_gets_what_is_promised_to_another(new_tenant):
    owner = new_tenant("shelf")
    owner.post("/templates/multi_branch_sales:install", {})
    branches = [u["id"] for u in owner.rows("sys.unit")]
    customer = owner.make("customer", name="Firm")["id"]
    place = {"product": owner.make("product", name="Chair")["id"],
             "warehouse": owner.make("warehouse", name="Store")["id"]}  # fmt: skip
    owner.make("stock_move", **place, quantity=str(IN_STOCK), reason="receipt")
    deals = [owner.make("deal", title=f"Deal {n}", customer=customer)["id"] for n in range(SELLERS)]

    def reserve(n):
        unit = branches[n % len(branches)]
        body = {"fields": {**place, "deal": deals[n], "quantity": "1"}, "unit": unit}
        answer = owner.http.post("/records/reservation", json=body)
        if answer.status_code != 201:
            (fault,) = answer.json()["errors"]
            assert (answer.status_code, fault["code"]) == (409, "not_free"), answer.text
            assert fault["detail"] == "There is not enough: 0 are free."
        return answer

    with ThreadPoolExecutor(SELLERS) as pool:
        answers = list(pool.map(reserve, range(SELLERS)))
    taken = [a.json()["id"] for a in answers if a.status_code == 201]
    assert len(taken) == IN_STOCK
    owner.make("reservation", reverses=taken[0])
    again = next(n for n, a in enumerate(answers) if a.status_code == 409)
    assert reserve(again).status_code == 201, "what was released is free"
    owner.make("stock_move", **place, quantity="5", reason="receipt")
    more = {"fields": {**place, "deal": deals[0], "quantity": "6"}}
    assert owner.post("/records/reservation", more, 409)["errors"][0]["detail"].endswith(
        "5 are free."
    )
    batch = [{"fields": {**place, "deal": d, "quantity": "3"}} for d in deals[:2]]
    assert owner.post("/records/reservation", batch, 409)["errors"][0]["pointer"].startswith("/1/")
