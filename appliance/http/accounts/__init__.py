"""What people do with accounts: functions over the tables of the room access, no HTTP in them."""
