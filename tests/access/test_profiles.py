"""Each shipped profile: what it is for, and above all what it cannot do."""

import pytest

from appliance.access.compile import compile_profile
from appliance.access.rights import is_within
from appliance.access.shipped import CAPABILITIES, grants_for, shipped
from appliance.base.errors import Refused
from appliance.kernel.kind import Authority, Field, Home, Kind, Sensitivity
from appliance.kernel.profile import Mode
from appliance.meta import SYSTEM_KINDS

CARD = Kind(key="card", fields=tuple(
    Field(fid=s.value, name=s.value, type="text", sensitivity=s) for s in Sensitivity
))  # fmt: skip
SHARED = Kind(key="price_list", fields=CARD.fields, home=Home.SHARED, authority=Authority.HUB)
CUSTOMER = Kind(key="customer", fields=CARD.fields, home=Home.SHARED)
KINDS = {**SYSTEM_KINDS, "card": CARD, "price_list": SHARED, "customer": CUSTOMER}
RIGHTS = ("sys.kind", "sys.field", "sys.profile", "sys.grant", "sys.membership", "sys.setting")
WRITES = ("create", "update", "delete", "restore", "purge", "import")


def compiled(key):
    data = {"key": key, "capabilities": shipped()[key].capabilities}
    return compile_profile(key, data, grants_for(key, KINDS.values()), 1, kinds=KINDS)


def scope(profile, action, kind="card"):
    return profile.scope(kind, action).kind.value


def modes(profile, kind=CARD):
    return {f.fid: profile.mode(kind.key, f).name.lower() for f in kind.fields}


# What is not in here, a profile cannot do: actions on business records by row scope.
ACTIONS = {
    "owner": dict.fromkeys(("read", "create", "update", "delete", "restore", "export", "import"), "all"),
    "admin": dict.fromkeys(("read", "create", "update", "delete", "restore"), "all"),
    "branch_manager": dict.fromkeys(("read", "create", "update", "delete", "restore", "export"), "subtree"),
    "dispatcher": {"read": "subtree", "create": "subtree", "update": "subtree"},
    "salesperson": {"read": "unit", "create": "unit", "update": "own"},
    "tech": {"read": "own", "update": "own"},
    "estimator": {"read": "unit", "create": "unit", "update": "own"},
    "storekeeper": {"read": "unit", "create": "unit", "update": "unit"},
    "bookkeeper": {"read": "all", "create": "subtree", "update": "subtree", "export": "subtree"},
    "finance": {"read": "all", "create": "all", "update": "all", "export": "all", "import": "all"},
    "auditor": {"read": "all"},
    "viewer": {"read": "subtree"},
}  # fmt: skip
# The mode of personal, confidential and restricted fields.
FIELDS = {
    "owner": ("write", "write", "write"), "admin": ("write", "read", "hidden"),
    "branch_manager": ("write", "read", "hidden"), "dispatcher": ("write", "hidden", "hidden"),
    "salesperson": ("write", "hidden", "hidden"), "tech": ("masked", "hidden", "hidden"),
    "estimator": ("masked", "write", "hidden"), "storekeeper": ("masked", "hidden", "hidden"),
    "bookkeeper": ("read", "write", "hidden"), "finance": ("read", "write", "read"),
    "auditor": ("masked", "read", "read"), "viewer": ("masked", "hidden", "hidden"),
}  # fmt: skip


def test_every_profile_is_here():
    assert set(shipped()) == set(ACTIONS) == set(FIELDS)


@pytest.mark.parametrize("key", sorted(ACTIONS))
def test_rows_and_fields(key):
    profile = compiled(key)
    for action in ("read", *WRITES, "export"):
        assert scope(profile, action) == ACTIONS[key].get(action, "none"), action
    found = modes(profile)
    assert tuple(found[s] for s in ("personal", "confidential", "restricted")) == FIELDS[key]
    assert (
        found["public"]
        == found["internal"]
        == ("read" if key in ("auditor", "viewer") else "write")
    )


@pytest.mark.parametrize("key", sorted(set(ACTIONS) - {"owner", "admin"}))
def test_none_but_owner_and_admin_touches_rights_kinds_or_people(key):
    profile = compiled(key)
    for kind in SYSTEM_KINDS.values():
        if kind.key == "sys.mapping" and profile.may("import.run"):
            continue  # How files are read is kept by who imports them.
        for action in WRITES:
            assert scope(profile, action, kind.key) == "none", (kind.key, action)
        assert Mode.WRITE not in {profile.mode(kind.key, f) for f in kind.fields}
    if key != "auditor":
        assert not any(profile.sees(SYSTEM_KINDS[k]) for k in RIGHTS)
    managing = {c for c in profile.capabilities if c.endswith((".manage", ".grant"))}
    assert not managing


@pytest.mark.parametrize("key", sorted(ACTIONS))
def test_capabilities_are_known_and_those_of_exports_go_with_the_scope(key):
    profile = compiled(key)
    assert profile.capabilities <= CAPABILITIES
    assert profile.may("export.run") == (scope(profile, "export") != "none")
    assert profile.may("audit.read") == (key in ("owner", "admin", "auditor"))
    for capability in ("staff.grant", "tenant.manage"):
        assert profile.may(capability) == (key == "owner")


@pytest.mark.parametrize("key", sorted(set(ACTIONS) - {"owner"}))
def test_the_owner_holds_more_than_anybody(key):
    assert is_within(compiled(key), compiled("owner"))
    assert not is_within(compiled("owner"), compiled(key))


@pytest.mark.parametrize("key", sorted(ACTIONS))
def test_nobody_purges_and_records_of_no_unit_are_changed_by_few(key):
    profile = compiled(key)
    assert all(scope(profile, "purge", k) == "none" for k in KINDS)
    assert scope(profile, "read", "price_list") == "all"
    assert (scope(profile, "update", "price_list") == "all") == (
        key in ("owner", "admin", "finance")
    )


@pytest.mark.parametrize("key", sorted(ACTIONS))
def test_a_customers_card_is_written_by_whoever_writes(key):
    profile, may = compiled(key), ACTIONS[key]
    assert scope(profile, "create", "customer") == ("all" if "create" in may else "none")
    wanted = {"own": "own", None: "none"}.get(may.get("update"), "all")
    assert scope(profile, "update", "customer") == wanted
    assert scope(profile, "delete", "customer") == ("all" if may.get("delete") == "all" else "none")


@pytest.mark.parametrize("key", sorted(ACTIONS))
def test_texts_in_three_languages_and_help_that_says_what_it_cannot(key):
    found = shipped()[key]
    assert all(found.labels[locale] for locale in ("en", "ru", "uk"))
    assert key == "owner" or "Not:" in found.help["en"]


def test_a_later_kind_and_field_are_closed_to_all():
    later, field = (
        Kind(key="later", fields=CARD.fields),
        Field(fid="later", name="later", type="text"),
    )
    for key in shipped():
        profile = compiled(key)
        assert not profile.sees(later)
        assert profile.mode("card", field) is Mode.HIDDEN


def test_an_unknown_profile_is_refused():
    with pytest.raises(Refused):
        grants_for("superuser", KINDS.values())
