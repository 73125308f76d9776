"""People come and go: in with one call, out with one call."""
