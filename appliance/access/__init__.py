"""Who may do what: profiles, sessions, passwords, tokens."""
