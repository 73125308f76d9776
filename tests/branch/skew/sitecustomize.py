"""For Python under libfaketime, whose clock_nanosleep refuses the moments that time.sleep gives it."""

import select
import time


def sleep(seconds):
    if seconds < 0:
        raise ValueError("sleep length must be non-negative")
    select.select([], [], [], seconds)


time.sleep = sleep
