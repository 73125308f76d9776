"""Names of tenants: what a slug may look like and which database a dedicated tenant gets."""

from __future__ import annotations

import re

from appliance.base.errors import Invalid

SLUG_CHARS_MIN, SLUG_CHARS_MAX = 2, 41
NAME_CHARS_MAX = 120
DEDICATED_PREFIX = "nexus_t_"
_SLUG = re.compile(r"[a-z0-9](-?[a-z0-9])+")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def check_slug(text: str) -> str:
    """The slug itself, or Invalid that says which rule it breaks."""
    if not SLUG_CHARS_MIN <= len(text) <= SLUG_CHARS_MAX:
        raise Invalid(
            f"The tenant's short name has {len(text)} characters; expected {SLUG_CHARS_MIN} to "
            f"{SLUG_CHARS_MAX}.",
            code="tenant.slug_length",
        )
    if not _SLUG.fullmatch(text):
        raise Invalid(
            f"The tenant's short name {text!r} is not acceptable: use small Latin letters and "
            "digits, with single hyphens between them, for example `north-trade`.",
            code="tenant.slug_form",
        )
    return text


def check_name(text: str) -> str:
    """The display name without surrounding space, or Invalid."""
    found = text.strip()
    if not found or len(found) > NAME_CHARS_MAX or _CONTROL.search(found):
        raise Invalid(
            f"The tenant's name must have 1 to {NAME_CHARS_MAX} characters on one line.",
            code="tenant.name_form",
        )
    return found


def dedicated_database(slug: str) -> str:
    """Database and placement name of a tenant of its own; two slugs never share one."""
    return DEDICATED_PREFIX + check_slug(slug).replace("-", "_")
