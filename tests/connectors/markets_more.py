"""Rozetka, Prom.ua and Kaspi as their contracts are known, over one Shop."""

import base64
from datetime import UTC, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

KYIV = ZoneInfo("Europe/Kyiv")
TYPE = "application/vnd.api+json"


def speak_rozetka(shop):
    """Each third question comes when the token has ended; orders are two on a page."""
    state = {"token": 0, "asked": 0}
    size = 2

    def goods():
        return [
            {"rz_item_id": 900 + n, "item_id": 100 + n, "price_offer_id": o, "price": float(shop.prices[o])}
            for n, o in enumerate(sorted(shop.prices))
        ]  # fmt: skip

    def speak(method, path, params, body):
        if path == "/sites":
            if base64.b64decode(body["password"]) != b"p":
                return 200, {"success": False, "errors": {"code": 1020, "message": "incorrect"}}, {}
            state["token"] += 1
            return 200, {"success": True, "content": {"access_token": f"t{state['token']}"}}, {}
        state["asked"] += 1
        if (
            state["asked"] % 3 == 0
            or shop.headers[-1]["Authorization"] != f"Bearer t{state['token']}"
        ):
            state["token"] += 1
            return (
                200,
                {"success": False, "errors": {"code": 6001, "message": "session_expired"}},
                {},
            )
        if path == "/orders/search":
            rows = [
                o
                for o in shop.orders
                if params["changed_from"] <= o.get("changed", o["at"]) <= params["changed_to"]
            ]
            at = (int(params["page"]) - 1) * size
            count = -(-len(rows) // size)
            found = [_rozetka_order(o) for o in shop.page(rows, at, size)]
            return (
                200,
                {"success": True, "content": {"orders": found, "_meta": {"pageCount": count}}},
                {},
            )
        if path == "/goods/all":
            return (
                200,
                {"success": True, "content": {"items": goods(), "_meta": {"pageCount": 1}}},
                {},
            )
        assert path == "/items/mass-update" and method == "PUT", path
        by_id, faulty = {g["rz_item_id"]: g["price_offer_id"] for g in goods()}, {}
        for item in body["items"]:
            offer = by_id[item["item_rz_id"]]
            if offer in shop.refuses:
                faulty[str(item["item_rz_id"])] = {
                    "reason": [{"id": 1, "value": [shop.refuses[offer]]}]
                }
            elif "price" in item:
                shop.set("price", offer, item["price"])
            else:
                shop.set("stock", offer, item["stock_quantity"])
        if faulty:
            return 200, {"success": False, "errors": faulty}, {}
        return 200, {"success": True, "content": None}, {}

    return speak  # fmt: skip


def _rozetka_order(order):
    at = datetime.fromisoformat(order["at"]).astimezone(KYIV)
    return {
        "id": order["id"], "status": int(order["status"]), "status_group": 1,
        "created": at.strftime("%Y-%m-%d %H:%M:%S"), "amount_with_discount": "999.80",
        "user_phone": "380954954374", "user_title": {"full_name": order["buyer"]}, "comment": "",
        "status_data": {"name_uk": "Нове замовлення"},
        "purchases": [
            {"item_name": f"Товар {o}", "quantity": q, "price": "999.00", "price_with_discount": p,
             "cost_with_discount": str(q * Decimal(p)), "item": {"id": 1, "price_offer_id": o}}
            for o, q, p in order["lines"]
        ],
    }  # fmt: skip


def speak_prom(shop):
    def speak(method, path, params, body):
        assert shop.headers[-1]["Authorization"] == "Bearer t"
        last = int(params.get("last_id", 1 << 60))
        size = int(params.get("limit", 100))
        if path == "/orders/list":
            rows = [
                o
                for o in sorted(shop.orders, key=lambda o: -o["id"])
                if o["id"] < last and o["at"] >= params["date_from"]
            ]
            return 200, {"orders": [_prom_order(o) for o in shop.page(rows, 0, size)]}, {}
        if path == "/products/list":
            rows = [
                {"id": n, "external_id": o, "price": float(shop.prices[o])}
                for n, o in enumerate(sorted(shop.prices), 1)
            ]
            return 200, {"products": [r for r in reversed(rows) if r["id"] < last][:2]}, {}
        assert path == "/products/edit_by_external_id", path
        done, errors = [], {}
        for item in body:
            if item["id"] in shop.refuses:
                errors[item["id"]] = {"error": shop.refuses[item["id"]]}
                continue
            done.append(item["id"])
            if "price" in item:
                shop.set("price", item["id"], item["price"])
            else:
                shop.set("stock", item["id"], item["quantity_in_stock"])
        return 200, {"processed_ids": done, "errors": errors}, {}

    return speak  # fmt: skip


def _prom_order(order):
    return {
        "id": order["id"], "date_created": order["at"].replace("Z", ".000000+00:00"),
        "status": order["status"], "status_name": "Нове", "client_id": 4, "client_last_name": order["buyer"],
        "client_first_name": "", "phone": "+380954954374", "email": None, "price": "1 200,50 грн",
        "delivery_option": {"id": 1, "name": "Нова Пошта"}, "payment_option": None,
        "products": [
            {"id": 9, "external_id": o, "sku": "x", "name": f"Товар {o}", "quantity": q,
             "price": f"{p.replace('.', ',')} грн", "total_price": f"{q * Decimal(p)} грн"}
            for o, q, p in order["lines"]
        ],
    }  # fmt: skip


def speak_kaspi(shop):
    """Whoever has no User-Agent waits for ever; a window of more than 14 days is refused."""

    def speak(method, path, params, body):
        headers = shop.headers[-1]
        assert (
            headers["User-Agent"] and headers["X-Auth-Token"] == "t" and headers["Accept"] == TYPE
        )
        if path == "/orders":
            since, to = (int(params[f"filter[orders][creationDate][${n}]"]) for n in ("ge", "le"))
            if to - since > 14 * 86_400_000:
                return 400, {"errors": [{"title": "no more than 14 days"}]}, {}
            state, size = params["filter[orders][state]"], int(params["page[size]"])
            rows = [o for o in shop.orders if state == "DELIVERY" and since <= _ms(o) <= to]
            at = int(params["page[number]"]) * size
            found = [_kaspi_order(o) for o in shop.page(rows, at, size)]
            return (
                200,
                {
                    "data": found,
                    "meta": {"pageCount": -(-len(rows) // size), "totalCount": len(rows)},
                },
                {},
            )
        ident = path.split("/")[2]
        (order,) = [o for o in (*shop.orders, *shop.gone.values()) if str(o["id"]) == ident]
        return (
            200,
            {"data": [_kaspi_entry(ident, n, *line) for n, line in enumerate(order["lines"])]},
            {},
        )

    return speak  # fmt: skip


def _ms(order):
    return int(datetime.fromisoformat(order["at"]).astimezone(UTC).timestamp() * 1_000)


def _kaspi_order(order):
    return {
        "id": str(order["id"]), "type": "orders",
        "attributes": {
            "code": f"K{order['id']}", "status": order["status"], "state": "DELIVERY",
            "creationDate": _ms(order), "totalPrice": 999.8, "paymentMode": "PREPAID",
            "customer": {"firstName": order["buyer"], "lastName": "", "cellPhone": "7010000000"},
            "deliveryAddress": {"formattedAddress": "Алматы"},
        },
    }  # fmt: skip


def _kaspi_entry(order, number, offer, quantity, price):
    return {
        "id": f"{order}-{number}", "type": "orderentries",
        "attributes": {
            "quantity": quantity, "basePrice": float(price), "totalPrice": quantity * float(price),
            "offer": {"code": offer, "name": f"Товар {offer}"},
        },
    }  # fmt: skip
