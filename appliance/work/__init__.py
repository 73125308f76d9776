"""Background work: the outbox's relay, jobs, schedules and the worker process around them."""
