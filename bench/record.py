"""What a run was measured on, and the files in bench/results that keep what it found."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, str]:
    """Return what was measured on what."""
    describe = ["git", "describe", "--always", "--dirty"]
    commit = subprocess.run(describe, capture_output=True, text=True, check=False)
    model = next((s for s in Path("/proc/cpuinfo").read_text().splitlines() if s.startswith("model name")), ":")
    return {
        "commit": commit.stdout.strip(),
        "kernel": platform.release(),
        "cpu": model.split(":", 1)[1].strip(),
        "cores": str(len(set(os.sched_getaffinity(0)))),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def keep(name: str, told: dict[str, Any], console: Console) -> Path:
    """Write what a run found to a file of results, which is returned, and say how many of its rows met their target."""
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{name}.json"
    file.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n")
    judged = [row["met"] for row in told["rows"] if row["met"] is not None]
    console.print(f"{sum(judged)} of {len(judged)} targets met; written to {file}")
    return file
