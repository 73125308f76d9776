"""Which invoices a payment may be for: grounds by strength, nothing shared out twice."""

from datetime import date, timedelta
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.banking.candidates import Invoice, Line, find_proposals
from appliance.banking.names import normal_name, numbers_in, tail_of
from appliance.banking.wanted import Wanted

DAY = date(2026, 11, 2)


def invoice(n, amount, **more):
    given_ = {"number": f"INV-A2026-{n:06}", "currency": "UAH", "customer": "c", **more}
    return Invoice(id=f"i{n}", left=Decimal(amount), issued=DAY - timedelta(days=30 - n), **given_)


def line(amount, ident="l", **more):
    return Line(id=ident, amount=Decimal(amount), currency="UAH", booked=DAY, **more)


def found(lines, invoices, **more):
    made = find_proposals(lines, invoices, **more)
    return [(p.line, p.invoice, str(p.amount), p.score, p.reason) for p in made]


def test_a_number_in_the_text_however_it_is_written():
    three = [invoice(n, "100.00") for n in (1, 2, 3)]
    for text in ("Оплата INV-A2026-000002 від 01.11", "inv a2026/000002", "INVA2026000002."):
        assert found([line("100.00", text=text)], three) == [
            ("l", "i2", "100.00", 95, "number in the text")
        ]


def test_one_payment_over_three_invoices_and_three_for_one():
    three = [invoice(1, "10.00"), invoice(2, "20.00"), invoice(3, "30.00")]
    text = "за INV-A2026-000001, INV-A2026-000002, INV-A2026-000003"
    shared = found([line("60.00", text=text)], three)
    assert [(i, a) for _, i, a, _, _ in shared] == [
        ("i1", "10.00"),
        ("i2", "20.00"),
        ("i3", "30.00"),
    ]
    assert {(s, w) for *_, s, w in shared} == {(95, "3 numbers in the text")}
    parts = [line("10.00", f"l{n}", text="INV-A2026-000003") for n in range(4)]
    assert [(p, a) for p, _, a, _, _ in found(parts, three)] == [
        ("l0", "10.00"), ("l1", "10.00"), ("l2", "10.00"),
    ]  # fmt: skip


def test_grounds_by_strength():
    own = [invoice(7, "50.00", tax_id="30000001", name="ТОВ «Ромашка Плюс»"),
           invoice(8, "70.00", tax_id="30000001", name="ТОВ «Ромашка Плюс»")]  # fmt: skip
    assert found([line("50.00", reference="RF18 INV-A2026-000007")], own)[0][3] == 100
    assert found([line("50.00", tax_id="30000001")], own)[0][3:] == (88, "tax id and amount")
    assert found([line("50.00", account="UA1")], own, learned={"UA1": "c"})[0][3] == 82
    assert [p[1] for p in found([line("120.00", tax_id="30000001")], own)] == ["i7", "i8"]
    (named,) = found([line("70.00", name="РОМАШКА ПЛЮС ООО")], own)
    assert named[1:3] == ("i8", "70.00") and 40 <= named[3] <= 70
    assert found([line("70.00", name="Зовсім інші")], own) == []
    assert found([line("60.00", tax_id="30000001")], own)[0][3:] == (50, "tax id, oldest first")
    assert found([line("50.00", tax_id="30000001", text="рах. 7")], own)[0][3] == 90


def test_what_was_declined_and_other_currencies_are_left():
    own = [invoice(1, "50.00", tax_id="3")]
    assert found([line("50.00", tax_id="3")], own, declined=frozenset({("l", "i1")})) == []
    assert found([Line("l", Decimal(50), "EUR", DAY, tax_id="3")], own) == []
    assert (
        found([line("50.00", tax_id="3")], [invoice(1, "50.00", currency="EUR", tax_id="3")]) == []
    )


def test_words_and_numbers():
    assert normal_name('ТОВ "Ромашка"') == normal_name("Ромашка, ООО") == "ромашка"
    assert normal_name("ТОВ") == "тов"
    assert "INVA2026000002" in numbers_in("inv A2026 000002 x")
    assert (tail_of("INV-A2026-000120"), tail_of("x")) == ("120", "")


AMOUNTS = st.decimals("0.01", "500.00", places=2)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(AMOUNTS, st.sampled_from("abc"), st.integers(0, 6)), max_size=12),
    st.lists(st.tuples(AMOUNTS, st.sampled_from("abc")), max_size=7),
)
def test_nothing_is_shared_out_beyond_what_it_has(lines, invoices):
    made = [invoice(n, a, tax_id=c, name=f"Name {c}") for n, (a, c) in enumerate(invoices)]
    asked = [
        line(a, f"l{n}", tax_id=c, name=f"Name {c}", text=f"INV-A2026-{number:06}")
        for n, (a, c, number) in enumerate(lines)
    ]
    proposals = find_proposals(asked, made)
    assert proposals == find_proposals(list(reversed(asked)), made)
    learned = {"acc": "cust1"}
    asked.append(line("7.00", "payer", account="acc"))
    made.append(invoice(8, "7.00", customer="cust1"))
    proposals = find_proposals(asked, made, learned=learned)
    wanted = Wanted(asked, learned)
    few = [one for one in made if wanted.asks_for(one)]
    assert find_proposals(asked, few, learned=learned) == proposals, "the others are found by none"
    assert all(p.amount > 0 and 0 < p.score <= 100 for p in proposals)
    for of, limit in (
        ("line", {x.id: x.amount for x in asked}),
        ("invoice", {x.id: x.left for x in made}),
    ):
        for ident, most in limit.items():
            assert sum((p.amount for p in proposals if getattr(p, of) == ident), Decimal(0)) <= most
