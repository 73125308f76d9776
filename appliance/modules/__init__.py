"""First-party modules as data: one TOML file each, nothing a tenant could not have built."""
