"""The OpenAPI document: valid, whole, and true of the server."""

from __future__ import annotations

import os
import re
import subprocess
import sysconfig
from pathlib import Path

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from crossway.api.openapi import PATH, document
from crossway.api.resources import place
from crossway.control.collection import Collection
from crossway.control.collections import every
from crossway.model.check import schema_of
from servers import Api, Server

# Of each operation; `make schemathesis` makes 10,000 of all.
CASES = int(os.environ.get("SCHEMATHESIS_CASES", "2"))
PHASES = os.environ.get("SCHEMATHESIS_PHASES", "fuzzing")
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


def test_it_is_valid_and_served(api: Api) -> None:
    told = api("GET", PATH)
    OpenAPIV31SpecValidator(told).validate()
    assert told["paths"].keys() == document()["paths"].keys()


@pytest.mark.parametrize("collection", list(every()), ids=lambda c: c.kind.name)
def test_every_attribute_says_what_it_takes(collection: Collection) -> None:
    kind = collection.kind
    silent = [a.wire for a in kind.attributes.values() if (a.post or a.put) and not schema_of(a.check)]
    assert silent == []


def test_every_path_leads_somewhere() -> None:
    for path, operations in document()["paths"].items():
        at = place(re.sub(r"{\w+}", "some", path.removeprefix("/v2.0/")))
        assert at is not None, path
        assert operations.keys() & {"get", "put", "post", "delete"}


def test_no_case_that_it_allows_breaks_the_server(tmp_path: Path) -> None:
    """schemathesis asks what the document says can be asked, and holds the answers against it."""
    server = Server(tmp_path)
    try:
        command = [f"{sysconfig.get_path('scripts')}/st", "run", f"{server.url}{PATH}", "--url", server.url]
        command += ["--checks", CHECKS, "--phases", PHASES, "--max-examples", str(CASES), "--seed", "1"]
        command += ["--suppress-health-check", "all", "--no-color", "--continue-on-failure"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
        assert done.returncode == 0, done.stdout[done.stdout.find("= FAILURES") :]
        print(re.findall(r"(\d+ generated.*)", done.stdout))
    finally:
        server.stop()
