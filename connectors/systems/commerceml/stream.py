"""What one reading of a package knows beside its rows: the lists of the classifier and settings.

Lists (groups, properties, price types, units) are as long as a classifier is, and bounded.
"""

from __future__ import annotations

from connectors.formats.staging import Staging
from connectors.sdk.contract import Fault, Place, Refused, Value

LISTED_MAX = 500_000


class Package(Staging):
    """The state of one reading."""

    def __init__(self, settings: dict[str, str]) -> None:
        super().__init__()
        self.zero_is_none = settings.get("price_zero_is_none", "yes") != "no"
        self.categories: set[str] = set()
        self.property_names: dict[str, str] = {}
        self.property_values: dict[str, str] = {}
        self.units: dict[str, str] = {}
        self.currencies: dict[str, str] = {}
        self.price_types: set[str] = set()
        self.warehouses: set[str] = set()
        self.images: frozenset[str] = frozenset()

    def refer(self, known: set[str], key: Value, expected: str, place: Place) -> None:
        """Tells of a reference into a list that the package brings without that entry."""
        if known and key not in known and isinstance(key, str):
            self.warn("unknown-reference", expected, key, place)

    def list_in(self, known: dict[str, str] | set[str], place: Place) -> None:
        """Refuses a list that no classifier has. Raises Refused."""
        if len(known) > LISTED_MAX:
            raise Refused(Fault("too-large", f"lists of at most {LISTED_MAX} entries", "", place))
