"""A command finds the node of its folder where that was told to listen."""

import msgspec

from appliance import assemble
from appliance.cli.node import ENDPOINTS, read_node_settings
from appliance.runtime.clamd import ScannerState
from appliance.runtime.services import Endpoints


def noted(data, port):
    scanner = ScannerState("absent", "")
    found = Endpoints("", "", "", "", "", "", scanner)
    assemble.write_endpoints(data / ENDPOINTS, msgspec.structs.replace(found, port=port))


def test_the_port_is_that_of_the_node_unless_another_is_said(tmp_path, monkeypatch):
    monkeypatch.delenv("NEXUS_PORT", raising=False)
    assert read_node_settings(str(tmp_path), None).port == 8470
    noted(tmp_path, 9123)
    assert read_node_settings(str(tmp_path), None).port == 9123
    assert read_node_settings(str(tmp_path), None).files_port == 9124
    assert read_node_settings(str(tmp_path), 7000).port == 7000
    monkeypatch.setenv("NEXUS_PORT", "7100")
    assert read_node_settings(str(tmp_path), None).port == 7100
    (tmp_path / ENDPOINTS).write_text("{")
    monkeypatch.delenv("NEXUS_PORT")
    assert read_node_settings(str(tmp_path), None).port == 8470
