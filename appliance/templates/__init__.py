"""Industries as data: TOML files that the install room reads."""
