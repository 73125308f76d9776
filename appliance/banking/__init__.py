"""Bank lines and invoices: which payment is for what, proposed by score, confirmed by a person."""

from appliance.banking.confirm import Part, Settled, confirm, decline, unmatch
from appliance.banking.propose import Matched, propose_matches

__all__ = ["Matched", "Part", "Settled", "confirm", "decline", "propose_matches", "unmatch"]
