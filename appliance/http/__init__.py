"""The HTTP door: thin routes over the two paths, one contract, one shape of refusal."""
