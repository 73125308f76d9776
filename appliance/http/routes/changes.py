"""A change set as a whole: its inverse."""

from __future__ import annotations

from litestar.response.base import ASGIResponse

from appliance.http.answers import reply
from appliance.http.ask import Ask
from appliance.http.outcomes import Written, in_list, written
from appliance.http.route import API, Book
from appliance.write import undo

book = Book("changes")


@book.route("POST", f"{API}/changes/{{change_set}}/undo", capability="records.use", writes=True,
            answers={200: Written}, headers=("Idempotency-Key",))  # fmt: skip
async def undo_change(ask: Ask) -> ASGIResponse:
    """Take a change set back, as a change of your own; all of it or nothing."""
    result = await undo(
        ask.node.db, ask.ctx, ask.ident("change_set"), command_id=ask.command_id(), guard=ask.gate
    )
    return reply(written(result, in_list))
