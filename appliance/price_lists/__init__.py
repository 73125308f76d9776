"""Price lists that leave: prices in force by type, branch and date, in a form that comes back."""

from appliance.price_lists.files import MEDIA, write
from appliance.price_lists.rows import Asked, List, read_list

__all__ = ["MEDIA", "Asked", "List", "read_list", "write"]
