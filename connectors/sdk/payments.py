"""Payments on their way out: one shape for every format of payment orders.

A writer refuses a whole batch with every fault at once, before a byte exists: a payment that a bank
sends back costs a day.
"""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Protocol

import msgspec

from connectors.sdk.contract import Fault


class Party(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who pays or is paid. `account`: an IBAN or a national number; `bank`: BIC, БИК or МФО of it.

    `registration_code`: КПП. `correspondent`: the correspondent account of a Russian bank. The
    address is structured; `country` is ISO 3166.
    """

    name: str
    account: str
    bank: str = ""
    bank_name: str = ""
    bank_city: str = ""
    correspondent: str = ""
    tax_id: str = ""
    registration_code: str = ""
    street: str = ""
    building: str = ""
    post_code: str = ""
    city: str = ""
    country: str = ""


class Budget(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The fields of a payment to the Russian budget (Положение 762-П), '0' where there is none."""

    status: str
    kbk: str
    oktmo: str
    basis: str = "0"
    period: str = "0"
    document_number: str = "0"
    document_date: str = "0"


class PaymentOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One payment. `purpose`: words for people; `reference`: a structured creditor reference;
    `end_to_end`: ours, unique for ever (the number when empty). `code`: УИН.
    """

    number: str
    execute_on: date
    amount: Decimal
    currency: str
    payee: Party
    purpose: str = ""
    reference: str = ""
    end_to_end: str = ""
    kind: str = "Платежное поручение"
    priority: str = "5"
    code: str = ""
    budget: Budget | None = None


class PaymentBatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Payments of one payer. `key`: unique for ever (MsgId); `made`: aware, when it was made."""

    key: str
    made: datetime
    payer: Party
    orders: tuple[PaymentOrder, ...]
    sender: str = ""


class Unwritable(Exception):
    """A batch that no bank would take: every fault of it. `place.row` is the order from 1, 0 for
    the batch; `place.column` the field.
    """

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        shown = "; ".join(f"{f.place.row} {f.place.column}: {f.code}" for f in faults[:10])
        super().__init__(f"{len(faults)} faults: {shown}")
        self.faults = faults


class PaymentWriter(Protocol):
    """One format of payment orders."""

    def write(self, batch: PaymentBatch) -> bytes:
        """The file for the bank. Raises Unwritable with all faults."""
        ...
