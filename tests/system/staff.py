"""People of a trade, invited and signed in by what a person would do."""

from tests.system.conftest import PASSWORD, Person, sign_in


def invite(node, owner, slug, unit, **profiles):
    """Somebody for each name: who can sign in, under the profile, in the unit."""
    found = {}
    for name, profile in profiles.items():
        (row,) = owner.rows(f'sys.profile where key = "{profile}"')
        email = f"{name}@example.org"
        body = {"name": name.title(), "email": email,
                "memberships": [{"profile": row["id"], "units": [unit["id"]]}]}  # fmt: skip
        code = owner.post("/invitations", body, 201)["code"]
        accepted = {"code": code, "password": PASSWORD}
        Person(node.url).post("/invitations/accept", accepted, 204)
        found[name] = sign_in(node, slug, email, PASSWORD)
    return found


def one(person, text):
    """The only row of a query."""
    (row,) = person.rows(text)
    return row


def entries(person, sort="kind"):
    """What the menu offers, by key; an entry says no number of anything."""
    items = person.get("/menu")["items"]
    assert all(set(i) <= {"sort", "key", "label", "kind"} for i in items), items
    return {i["key"] for i in items if i["sort"] == sort}
