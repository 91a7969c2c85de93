"""Read a stream of subunit on standard input; write what came of each test, one JSON document a line.

Run by the environment that has Tempest: see scripts/tempest.
"""

import json
import sys

import subunit
import testtools


def tell(test):
    """Write the outcome of one test: its name, its status, and what was said of it."""
    said = {name: detail.as_text() for name, detail in test["details"].items()}
    why = said.get("traceback") or said.get("reason") or ""
    print(json.dumps({"name": test["id"], "status": test["status"], "why": why}))


result = testtools.StreamToDict(tell)
result.startTestRun()
subunit.ByteStreamToStreamResult(sys.stdin.buffer).run(result)
result.stopTestRun()
