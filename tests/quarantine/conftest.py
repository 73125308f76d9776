"""A folder that the service account can pass."""

import shutil
import tempfile
from pathlib import Path

import pytest


@pytest.fixture
def data():
    # Not pytest's own, which every further run of pytest closes to other accounts.
    folder = Path(tempfile.mkdtemp(prefix="nexus-plane-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
