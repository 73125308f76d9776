"""What a file is, by its bytes: what scripts and texts about scripts look like, and who may agree."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quarantine.contract import Policy
from quarantine.detection.detect import detect
from quarantine.engines.base import Leaf
from quarantine.engines.types import ENGINE
from tests.quarantine.benign_containers import BENIGN
from tests.quarantine.corpus_containers import CASES

PROJECT = Path(__file__).resolve().parents[2]
TYPES = {
    "openpyxl.xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "letter.docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "slides.pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    "table.ods": "application/vnd.oasis.opendocument.spreadsheet",
    "python.zip": "application/zip",
    "page.pdf": "application/pdf",
    "p.png": "image/png",
    "p.jpg": "image/jpeg",
    "p.gif": "image/gif",
    "p.svg": "image/svg+xml",
    "old.dbf": "application/x-dbf",
    "statement.sta": "text/x-mt940",
    "statement.txt": "text/x-1c-client-bank",
    "statement.ofx": "text/x-ofx",
    "commerce.xml": "application/x-commerceml",
    "feed.xml": "application/x-yml-catalog",
    "data.json": "application/json",
    "table.csv": "text/csv",
    "semicolons.csv": "text/csv",
    "wide.csv": "text/csv",
    "readme.md": "text/plain",
    "table.html": "text/html",
    "gnu.tar": "application/x-tar",
    "a.csv.gz": "application/gzip",
}


def examine(tmp_path, name, data, policy=None, inside=""):
    path = tmp_path / "plaintext"
    path.write_bytes(data)
    leaf = Leaf(path, name, "", 1 if inside else 0, detect(path, name), inside)
    return [f.code for f in ENGINE.examine(leaf, policy or Policy())]


@pytest.mark.parametrize("name", TYPES)
def test_type_is_told_by_the_bytes(name, tmp_path):
    path = tmp_path / "plaintext"
    path.write_bytes(BENIGN[name]())
    assert detect(path, name) == TYPES[name]


def test_text_files_of_this_project_are_no_scripts(tmp_path):
    """Documents full of commands, and tables of words: a script is more than a word."""
    wrong = []
    for path in [*PROJECT.glob("*.md"), *PROJECT.glob("docs/**/*.md"), *PROJECT.glob("**/*.toml")]:
        if detect(path, path.name) not in ("text/plain", "text/csv"):
            wrong.append((path.name, detect(path, path.name)))
    assert not wrong


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (b"#!/bin/bash\necho", "text/x-shellscript"),
        (b"#! /usr/bin/env node\n1", "text/javascript"),
        (b"powershell -enc AAAA\nStart-Process x -EncodedCommand a", "text/x-powershell"),
        (b'IEX (New-Object Net.WebClient).DownloadString("http://a")', "text/x-powershell"),
        (b'CreateObject("WScript.Shell").Run "x"\nDim a', "text/x-vbscript"),
        (b"@echo off\nstart calc", "text/x-msdos-batch"),
        (b"cmd /c start calc\n@echo off", "text/x-msdos-batch"),
        (b"eval(String.fromCharCode(97));", "text/javascript"),
        (b"'use strict';\nconst a = require('fs');\na.rm('x');", "text/javascript"),
        (b"<?php system('id');", "text/x-php"),
        (b"<job><script language='VBScript'>x</script></job>", "application/x-ms-script-component"),
    ],
)
def test_script_is_told_by_what_it_does(script, kind, ending, tmp_path):
    path = tmp_path / "plaintext"
    path.write_bytes(script.replace(b"\n", ending) + ending)
    assert detect(path, "notes.txt") == kind
    assert examine(tmp_path, "notes.txt", path.read_bytes()) == ["type.script"]


def test_list_of_the_place_decides(tmp_path):
    sheet = BENIGN["openpyxl.xlsx"]()
    assert examine(tmp_path, "a.xlsx", sheet, Policy(extensions=(".XLSX",))) == []
    assert examine(tmp_path, "a.xlsx", sheet, Policy(extensions=("csv",))) == ["type.not_allowed"]
    script = b"#!/bin/sh\necho 1\n"
    assert examine(tmp_path, "a.sh", script, Policy(extensions=("sh",))) == []
    program = b"MZ" + bytes(58) + b"\x40\0\0\0PE\0\0" + bytes(100)
    assert examine(tmp_path, "a.exe", program, Policy(extensions=("exe",))) == []
    # The name alone opens no door for what the list does not name.
    both = Policy(extensions=("csv", "exe"))
    assert examine(tmp_path, "a.csv", program, both) == ["type.executable"]


def test_parts_of_documents_are_not_on_the_list(tmp_path):
    document = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
    policy = Policy(extensions=("xlsx",))
    assert examine(tmp_path, "sheet1.xml", b"<?xml version='1.0'?><a/>", policy, document) == []
    assert examine(tmp_path, "printerSettings1.bin", b"\1\0\2\0" * 50, policy, document) == []
    assert examine(tmp_path, "x.bin", b"MZ" + bytes(99), policy, document) == ["type.executable"]


@settings(deadline=None, max_examples=300)
@given(data=st.binary(max_size=3000), pick=st.integers(0, 10_000), cut=st.integers(0, 3000))
def test_detection_never_breaks(data, pick, cut, tmp_path_factory):
    """Noise, and real files cut or overwritten anywhere: an answer, never an exception."""
    path = tmp_path_factory.getbasetemp() / "fuzz"
    makers = [case.make for case in CASES if "bomb" not in case.name and "many" not in case.name]
    real = makers[pick % len(makers)]()[:20_000]
    for content in (data, real[:cut] + data[: len(data) // 50] + real[cut + 5 :]):
        path.write_bytes(content)
        kind = detect(path, "a.txt")
        assert "/" in kind
        list(ENGINE.examine(Leaf(path, "a.txt", "", 0, kind), Policy()))


def test_libmagic_is_the_one_of_the_wheel():
    assert importlib.util.find_spec("pylibmagic")
    code = (
        "from quarantine.detection import detect; detect.version();"
        "print([l.split()[-1] for l in open('/proc/self/maps') if 'libmagic' in l][0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert "pylibmagic" in done.stdout
    assert not done.stderr
