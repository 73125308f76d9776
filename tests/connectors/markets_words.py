"""Ozon, Yandex Market and Wildberries as their published contracts have it, over one Shop.

An order of a Shop: {"id", "at", "status", "lines": [(offer, quantity, price)], "buyer"}.
"""

from datetime import datetime
from zoneinfo import ZoneInfo


def speak_ozon(shop):
    def speak(method, path, params, body):
        return 200, _OZON[path](shop, body), {}

    return speak


def _postings(shop, body):
    wanted, at = body["filter"], body["offset"]
    changed = wanted.get("last_changed_status_date")
    since, to = (changed["from"], changed["to"]) if changed else (wanted["since"], wanted["to"])
    field = "changed" if changed else "at"
    rows = [o for o in shop.orders if since <= o.get(field, o["at"]) <= to]
    found = shop.page(rows, at, body["limit"])
    return {
        "result": {
            "postings": [_posting(o) for o in found], "has_next": at + body["limit"] < len(rows)
        }
    }  # fmt: skip


def _posting(order):
    return {
        "posting_number": str(order["id"]), "order_number": f"N{order['id']}",
        "status": order["status"], "substatus": "", "in_process_at": order["at"],
        "products": [
            {"offer_id": o, "name": f"Товар {o}", "quantity": q, "price": p, "currency_code": "RUB", "sku": 1}
            for o, q, p in order["lines"]
        ],
        "customer": {"customer_id": 7, "name": order["buyer"], "phone": ""} if order.get("buyer") else None,
        "delivery_method": {"warehouse": "Main", "warehouse_id": 22, "name": "Ozon Logistics"},
    }  # fmt: skip


def _ozon_prices(shop, body):
    only = body["filter"].get("offer_id")
    names = sorted(shop.prices) if only is None else [o for o in only if o in shop.prices]
    at = int(body["cursor"] or 0)
    found = names[at : at + body["limit"]]
    end = at + len(found)
    return {
        "items": [
            {"offer_id": o, "product_id": 1, "price": {"price": float(shop.prices[o]), "old_price": 0, "currency_code": "RUB"}}
            for o in found
        ],
        "cursor": str(end) if found else "", "total": len(names),
    }  # fmt: skip


def _ozon_stocks(shop, body):
    names = sorted(shop.stocks)
    at = int(body["cursor"] or 0)
    found = names[at : at + body["limit"]]
    stocks = [{"type": "fbs", "present": 0, "reserved": 0}, {"type": "fbo", "present": 99}]
    return {
        "items": [
            {"offer_id": o, "product_id": 1, "stocks": [{**stocks[0], "present": int(shop.stocks[o])}, stocks[1]]}
            for o in found
        ],
        "cursor": str(at + len(found)) if found else "", "total": len(names),
    }  # fmt: skip


def _ozon_set(what, listed, field):
    def answer(shop, body):
        result = []
        for item in body[listed]:
            offer = item["offer_id"]
            said = shop.refuses.get(offer)
            if not said:
                shop.set(what, offer, item[field])
            errors = [{"code": said, "message": said}] if said else []
            result.append({"offer_id": offer, "updated": not said, "errors": errors})
        return {"result": result}

    return answer


_OZON = {
    "/v3/posting/fbs/list": _postings,
    "/v5/product/info/prices": _ozon_prices,
    "/v4/product/info/stocks": _ozon_stocks,
    "/v1/product/import/prices": _ozon_set("price", "prices", "price"),
    "/v2/products/stocks": _ozon_set("stock", "stocks", "stock"),
    "/v3/product/list": lambda shop, body: {
        "result": {"items": [{"offer_id": o} for o in sorted(shop.prices) if not body["last_id"]], "last_id": "x"}
    },
    "/v3/product/info/list": lambda shop, body: {
        "items": [{"offer_id": o, "name": f"Товар {o}", "barcodes": [f"46{o}"]} for o in body["offer_id"]]
    },
}  # fmt: skip


def speak_yandex(shop):
    def speak(method, path, params, body):
        if path == "/v2/campaigns/5/orders":
            return 200, _yandex_orders(shop, params), {"X-RateLimit-Resource-Remaining": "90"}
        if path == "/v2/campaigns/5/offers/stocks" and method == "PUT":
            for sku in body["skus"]:
                shop.set("stock", sku["sku"], sku["items"][0]["count"])
            return 200, {"status": "OK"}, {}
        if path == "/v2/campaigns/5/offers/stocks":
            offers, token = _yandex_page(shop, shop.stocks, params)
            held = [
                {
                    "offerId": o,
                    "stocks": [
                        {"type": "FIT", "count": int(shop.stocks[o])},
                        {"type": "DEFECT", "count": 3},
                    ],
                }
                for o in offers
            ]
            return (
                200,
                {
                    "status": "OK",
                    "result": {
                        "warehouses": [{"warehouseId": 47, "offers": held}],
                        "paging": token,
                    },
                },
                {},
            )
        if path == "/v2/businesses/9/offer-prices/updates":
            if bad := [o["offerId"] for o in body["offers"] if o["offerId"] in shop.refuses]:
                return (
                    400,
                    {"status": "ERROR", "errors": [{"code": "BAD_REQUEST", "message": bad[0]}]},
                    {},
                )
            for offer in body["offers"]:
                shop.set("price", offer["offerId"], offer["price"]["value"])
            return 200, {"status": "OK"}, {}
        if path == "/v2/businesses/9/offer-prices":
            chosen = {
                o: p for o, p in shop.prices.items() if o in (body.get("offerIds") or shop.prices)
            }
            offers, token = _yandex_page(shop, chosen, params if not body.get("offerIds") else {})
            priced = [
                {"offerId": o, "price": {"value": float(shop.prices[o]), "currencyId": "RUR"}}
                for o in offers
            ]
            return 200, {"status": "OK", "result": {"offers": priced, "paging": token}}, {}
        assert path == "/v2/businesses/9/offer-mappings", path
        offers, token = _yandex_page(shop, shop.prices, params)
        mapped = [
            {"offer": {"offerId": o, "name": f"Товар {o}", "barcodes": [46012300000000]}}
            for o in offers
        ]
        return 200, {"status": "OK", "result": {"offerMappings": mapped, "paging": token}}, {}

    return speak  # fmt: skip


def _yandex_page(shop, rows, params):
    names = sorted(rows)
    after = params.get("page_token", "")
    found = [n for n in names if n > after][: int(params.get("limit", 1_000))]
    token = {"nextPageToken": found[-1]} if found and found[-1] != names[-1] else {}
    return found, token


def _yandex_orders(shop, params):
    since, to = (datetime.fromisoformat(params[n]) for n in ("updatedAtFrom", "updatedAtTo"))
    rows = sorted(
        (o for o in shop.orders if since <= datetime.fromisoformat(o.get("changed", o["at"])) <= to),
        key=lambda o: o["id"],
    )  # fmt: skip
    after = int(params.get("page_token", 0))
    rest = [o for o in rows if o["id"] > after]
    found = shop.page(rest, 0, int(params["limit"]))
    last = max((o["id"] for o in found), default=0)
    token = {"nextPageToken": str(last)} if found and last != rows[-1]["id"] else {}
    return {"pager": {"total": 0}, "orders": [_yandex_order(o) for o in found], "paging": token}


def _yandex_order(order):
    at = datetime.fromisoformat(order["at"]).astimezone(ZoneInfo("Europe/Moscow"))
    return {
        "id": order["id"], "status": order["status"], "substatus": "STARTED", "currency": "RUR",
        "creationDate": at.strftime("%d-%m-%Y %H:%M:%S"), "fake": False,
        "itemsTotal": sum(q * float(p) for _, q, p in order["lines"]), "deliveryTotal": 0,
        "items": [
            {"id": n, "offerId": o, "offerName": f"Товар {o}", "price": float(p), "count": q}
            for n, (o, q, p) in enumerate(order["lines"])
        ],
        "buyer": {"id": "b1", "lastName": order["buyer"], "firstName": "", "type": "PERSON"}
        if order.get("buyer") else None,
    }  # fmt: skip


def speak_wildberries(shop):
    """Offers are articles with one size each; card numbers are made of their place in the list."""
    tasks = {}

    def cards():
        return [
            {
                "nmID": 1_000 + n,
                "vendorCode": o,
                "title": f"Товар {o}",
                "sizes": [{"chrtID": 5_000 + n, "skus": [f"20{n:05}"]}],
            }
            for n, o in enumerate(sorted(shop.stocks))
        ]

    def speak(method, path, params, body):
        by_card = {c["nmID"]: c["vendorCode"] for c in cards()}
        by_size = {c["sizes"][0]["chrtID"]: c["vendorCode"] for c in cards()}
        if path == "/api/v3/orders":
            since, to = int(params["dateFrom"]), int(params["dateTo"])
            rows = [
                o for o in shop.orders if since <= datetime.fromisoformat(o["at"]).timestamp() <= to
            ]
            at = int(params["next"])
            found = shop.page([o for o in rows if o["id"] > at], 0, int(params["limit"]))
            last = max((o["id"] for o in found), default=0)
            return 200, {"orders": [_wb_order(o) for o in found], "next": last}, {}
        if path == "/api/v3/orders/status":
            by_id = {o["id"]: o["status"] for o in (*shop.orders, *shop.gone.values())}
            said = [
                {"id": i, "supplierStatus": "complete", "wbStatus": by_id[i]}
                for i in body["orders"]
                if i in by_id
            ]
            return 200, {"orders": said}, {}
        if path == "/content/v2/get/cards/list":
            cursor = body["settings"]["cursor"]
            rest = [c for c in cards() if c["nmID"] > cursor.get("nmID", 0)][: cursor["limit"]]
            last = rest[-1]["nmID"] if rest else 0
            return (
                200,
                {
                    "cards": rest,
                    "cursor": {
                        "updatedAt": "2026-01-01T00:00:00Z",
                        "nmID": last,
                        "total": len(rest),
                    },
                },
                {},
            )
        if path == "/api/v2/upload/task":
            key = str(sorted((d["nmID"], d["price"], d["discount"]) for d in body["data"]))
            is_new = key not in tasks
            task = tasks.setdefault(key, len(tasks) + 1)
            faulty = []
            for item in body["data"]:
                offer = by_card[item["nmID"]]
                if offer in shop.refuses:
                    faulty.append(
                        {"nmID": item["nmID"], "status": 3, "errorText": shop.refuses[offer]}
                    )
                else:
                    shop.set("price", offer, item["price"] * (100 - item["discount"]) / 100)
            tasks[task] = faulty
            return (
                200 if is_new else 208,
                {"data": {"id": task, "alreadyExists": not is_new}, "error": False},
                {},
            )
        if path == "/api/v2/history/tasks":
            faulty = tasks[int(params["uploadID"])]
            return 200, {"data": {"uploadID": 1, "status": 5 if faulty else 3}, "error": False}, {}
        if path == "/api/v2/history/goods/task":
            return (
                200,
                {"data": {"historyGoods": tasks[int(params["uploadID"])]}, "error": False},
                {},
            )
        if path == "/api/v2/list/goods/filter":
            chosen = [c for c in cards() if body is None or c["nmID"] in body["nmList"]]
            at = int(params.get("offset", 0))
            listed = [
                _wb_good(shop, c)
                for c in chosen[at : at + int(params.get("limit", 1_000))]
                if c["vendorCode"] in shop.prices
            ]
            return 200, {"data": {"listGoods": listed}, "error": False}, {}
        assert path == "/api/v3/stocks/31", path
        if method == "PUT":
            if bad := [s for s in body["stocks"] if by_size[s["chrtId"]] in shop.refuses]:
                return 409, [{"code": "NotFound", "message": "no such size", "data": bad}], {}
            for stock in body["stocks"]:
                shop.set("stock", by_size[stock["chrtId"]], stock["amount"])
            return 204, None, {}
        said = [{"chrtId": c, "amount": int(shop.stocks[by_size[c]])} for c in body["chrtIds"]]
        return 200, {"stocks": said}, {}

    return speak  # fmt: skip


def _wb_order(order):
    ((offer, _, price),) = order["lines"]
    return {
        "id": order["id"], "rid": f"r{order['id']}", "article": offer, "createdAt": order["at"],
        "price": round(float(price) * 100), "currencyCode": 643, "skus": ["2000000"], "chrtId": 5_000,
        "nmId": 1_000, "warehouseId": 31, "orderUid": "u", "comment": "",
    }  # fmt: skip


def _wb_good(shop, card):
    price = float(shop.prices[card["vendorCode"]])
    sizes = [{"sizeID": card["sizes"][0]["chrtID"], "price": price, "discountedPrice": price}]
    return {"nmID": card["nmID"], "vendorCode": card["vendorCode"], "sizes": sizes, "currencyIsoCode4217": "RUB", "discount": 0}  # fmt: skip
