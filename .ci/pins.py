"""Turns pip's installation report into constraints: one exact pin a line, for any machine.

Usage: python .ci/pins.py REPORT.json > constraints.txt
"""

import json
import re
import sys
from pathlib import Path

HEADER = """\
# The exact versions that `make demo`, `make test` and the checks install. The library itself keeps the
# ranges of pyproject.toml; a pin only fixes which release of a package is taken when something asks for it.
# Made with `make constraints` on Linux, Python 3.11, for every extra; read the difference before committing.
"""
# The project itself, and what every virtual environment already holds.
LEFT_OUT = {"rag-plugin", "pip", "setuptools"}


def canonical(name: str) -> str:
    """The one spelling of a package's name (Source: the packaging specification, name normalisation)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(report: dict[str, list[dict[str, dict[str, str]]]]) -> list[str]:
    """Sorted `name==version` lines, without the local part that only one machine's build has."""
    found = {canonical(item["metadata"]["name"]): item["metadata"]["version"] for item in report["install"]}
    kept = sorted((name, version.split("+")[0]) for name, version in found.items() if name not in LEFT_OUT)
    return [f"{name}=={version}" for name, version in kept]


if __name__ == "__main__":
    report = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    sys.stdout.write(HEADER + "\n".join(pins(report)) + "\n")
