"""A clinic's day, through the public contract alone: booked, seen, recorded, invoiced.

What is medical is for those who treat: nobody at the desk and nobody who counts money sees it.
"""

import json

import pytest

from tests.system.staff import entries, invite, one

SECRETS = ("penicillin", "J20.9", "Bronchitis", "crackles", "Amoxicillin", "cough for a week")
TREATS = {"owner", "doctor", "nurse"}


@pytest.fixture(scope="module")
def owner(new_tenant):
    found = new_tenant("clinic")
    found.post("/templates/hospital:install", {})
    return found


@pytest.fixture(scope="module")
def clinic(node, owner):
    north = one(owner, 'sys.unit where name = "Polyclinic North"')
    return invite(node, owner, "clinic", north, desk="receptionist", doc="doctor", nurse="nurse",
                  books="bookkeeper", money="finance", looks="auditor")  # fmt: skip


def test_a_visit_from_the_booking_to_the_payment(owner, clinic):
    desk, doctor = clinic["desk"], clinic["doc"]
    (me,) = owner.rows('sys.person where email = "doc@example.org"')
    card = owner.make("doctor", name="Dr Hnatiuk", specialty="therapist", person=me["id"])
    patient = desk.make("patient", name="Ostap Melnyk", born="1990-05-01", phone="+380441234567",
                        doctor=card["id"])  # fmt: skip
    assert patient["number"].startswith("PAT-") and patient["fields"]["visits"] in (None, 0)
    service = one(desk, 'service where code = "A01"')
    visit = desk.make("appointment", patient=patient["id"], doctor=card["id"],
                      service=service["id"], starts_at="2027-03-01T09:00:00+02:00")  # fmt: skip
    visit = moved(desk, visit, "confirmed", "arrived")
    doctor.edit(doctor.get(f"/records/patient/{patient['id']}"), allergies="penicillin")
    seen = doctor.get(f"/records/appointment/{visit['id']}")
    seen = doctor.edit(seen, reason="cough for a week", state="done")
    record = doctor.make(
        "medical_record", patient=patient["id"], doctor=card["id"], appointment=visit["id"],
        recorded_at="2027-03-01T09:20:00+02:00", diagnosis_code="J20.9",
        diagnosis="Bronchitis", findings="crackles on the left",
    )  # fmt: skip
    doctor.make("prescription", patient=patient["id"], doctor=card["id"], record=record["id"],
                medicine="Amoxicillin", dose="500 mg", times="3 a day")  # fmt: skip
    read_by_the_nurse(clinic["nurse"], patient, record)
    unseen(desk, patient, visit, record)
    for name in ("books", "money", "looks"):
        unseen(clinic[name], patient, visit, record)
    paid(owner, clinic, patient, visit, service)
    assert owner.get(f"/records/patient/{patient['id']}")["fields"]["visits"] == 1


def moved(person, record, *states):
    """Through its states; a state that is none is refused with the field."""
    for state in states:
        record = person.edit(record, state=state)
        assert record["fields"]["state"] == state
    tag = {"If-Match": f'"{record["version"]}"'}
    path = f"/records/{record['kind']}/{record['id']}"
    refused = person.call("PATCH", path, 422, json={"fields": {"state": "lost"}}, headers=tag)
    assert refused["errors"][0]["pointer"] == "/fields/state"
    return record


def read_by_the_nurse(nurse, patient, record):
    assert (
        nurse.get(f"/records/medical_record/{record['id']}")["fields"]["diagnosis"] == "Bronchitis"
    )
    assert nurse.get(f"/records/patient/{patient['id']}")["fields"]["allergies"] == "penicillin"
    tag = {"If-Match": f'"{record["version"]}"'}
    path = f"/records/medical_record/{record['id']}"
    nurse.call("PATCH", path, 403, json={"fields": {"diagnosis": "another"}}, headers=tag)


def unseen(person, patient, visit, record):
    """Nothing medical by any way that leads to it."""
    assert not {"medical_record", "prescription"} & entries(person)
    for kind in ("medical_record", "prescription"):
        person.call("GET", f"/kinds/{kind}", 404)
        person.call("GET", "/query", 422, params={"q": kind})
        path = f"/records/{kind}/{record['id']}"
        person.call("GET", path, 404)
        person.call("GET", f"{path}/history", 404)
    for field in ("allergies", "blood_group"):
        where = {"from": "patient", "where": {"field": field, "op": "is_null", "value": False}}
        person.post("/query", where, 422)
    told = [
        person.get("/kinds"), person.get("/query", q="patient"), person.get("/query", q="appointment"),
        person.get(f"/records/patient/{patient['id']}"),
        person.get(f"/records/patient/{patient['id']}/history"),
        person.get(f"/records/appointment/{visit['id']}"),
        person.get(f"/records/appointment/{visit['id']}/history"),
    ]  # fmt: skip
    text = json.dumps(told)
    assert not [s for s in (*SECRETS, "allergies", "blood_group", "diagnosis") if s in text]


def paid(owner, clinic, patient, visit, service):
    """The desk writes the invoice for the visit, the bookkeeper takes the money in."""
    desk, books = clinic["desk"], clinic["books"]
    payer = desk.make("customer", name="Ostap Melnyk", type="person")
    invoice = desk.make("invoice", customer=payer["id"], patient=patient["id"],
                        appointment=visit["id"], issued="2027-03-01")  # fmt: skip
    desk.make("invoice_line", invoice=invoice["id"], service=service["id"],
              text="First visit", unit_price="600")  # fmt: skip
    invoice = desk.get(f"/records/invoice/{invoice['id']}")
    assert invoice["fields"]["gross_total"] == "600.00"
    payment = books.make("payment", customer=payer["id"], amount="600", type="card")
    books.make("allocation", invoice=invoice["id"], payment=payment["id"], amount="600")
    books.edit(books.get(f"/records/invoice/{invoice['id']}"), state="paid")
    assert owner.get(f"/records/invoice/{invoice['id']}")["fields"]["paid"] == "600.00"
    clinic["doc"].call("GET", f"/records/invoice/{invoice['id']}", 404)
    tag = {"If-Match": f'"{invoice["version"]}"'}
    desk.call("PATCH", f"/records/invoice/{invoice['id']}", 403, json={"fields": {"state": "draft"}},
              headers=tag)  # fmt: skip


def test_who_treats_alone_is_granted_what_is_restricted(owner, clinic):
    """As granted, kind by kind and field by field, to whoever may be invited later."""
    profiles = {p["id"]: p["fields"]["key"] for p in owner.rows("sys.profile limit 100")}
    restricted = {
        kind: {f["name"] for f in owner.get(f"/kinds/{kind}")["fields"] if f["sensitivity"] == "restricted"}
        for kind in ("medical_record", "prescription", "patient", "appointment")
    }  # fmt: skip
    assert all(restricted.values())
    for kind, fields in restricted.items():
        for grant in owner.rows(f'sys.grant where kind = "{kind}" limit 100'):
            grant = owner.get(f"/records/sys.grant/{grant['id']}")["fields"]
            open_ = {f for f, mode in grant["fields"].items() if mode != "hidden"}
            who = profiles[grant["profile"]]
            assert who in TREATS or not open_ & fields, f"{who} on {kind}"


def test_the_menu_is_what_one_may_read_and_what_is_on(owner, clinic):
    desk, doctor = clinic["desk"], clinic["doc"]
    assert {"patient", "appointment", "invoice"} <= entries(desk)
    assert {"medical_record", "patient"} <= entries(doctor) and "invoice" not in entries(doctor)
    assert {"appointments_today", "invoices_due"} <= entries(desk, "view")
    assert "invoices_due" not in entries(doctor, "view")
    assert entries(desk, "settings") <= {"people"}
    owner.post("/modules/invoicing:disable", {})
    assert not {"invoice", "payment"} & (entries(desk) | entries(owner))
    assert "invoices_due" not in entries(desk, "view") | entries(owner, "view")
    owner.post("/modules/invoicing:enable", {})
    assert "invoice" in entries(desk) and "invoices_due" in entries(desk, "view")
    (profile,) = owner.rows('sys.profile where key = "receptionist"')
    grants = owner.rows(f'sys.grant where kind = "patient" and profile = "{profile["id"]}"')
    owner.call("DELETE", f"/records/sys.grant/{grants[0]['id']}", 200,
               headers={"If-Match": f'"{grants[0]["version"]}"'})  # fmt: skip
    assert "patient" not in entries(desk) and "patients_active" not in entries(desk, "view")
