"""Starts programs that end with this one, also when it is killed.

The kernel sends the death signal when the *thread* that started a child ends, so children are
started by one thread that is there to the end, whichever thread asks.
"""

import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor

from appliance.runtime.account import child_setup, own_account

_STARTER = ThreadPoolExecutor(1, thread_name_prefix="starter")


def start(argv, death=signal.SIGTERM, **more):
    """`subprocess.Popen` of a child that gets `death` when this process is no more."""
    setup = child_setup(own_account(), death)
    return _STARTER.submit(subprocess.Popen, argv, preexec_fn=setup, **more).result()
