# SPDX-License-Identifier: Apache-2.0
"""`python -m bench NAME... [--json FILE]`: takes figures and prints them as a table."""

from __future__ import annotations

import argparse
import importlib
import json
import sys

from bench.rows import Row, machine

MODULES = {
    "spawn": "spawn_",
    "lock": "lock_",
    "launch": "launch_",
    "import": "import_",
    "kv": "kv",
    "state": "state",
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "names", nargs="+", choices=MODULES, metavar="NAME", help=", ".join(MODULES)
    )
    parser.add_argument("--json", metavar="FILE", help="write machine and rows there")
    arguments = parser.parse_args()
    rows: list[Row] = []
    for name in arguments.names:
        found = importlib.import_module(f"bench.{MODULES[name]}").rows()
        print_table(found)
        rows += found
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump({"machine": machine(), "rows": rows}, file, indent=2)
            file.write("\n")
    missed = [row for row in rows if row["must"] is not None and row["ratio"] > row["must"]]
    for row in missed:
        print(f"missed: {row['name']} against {row['peer_name']}", file=sys.stderr)
    return 1 if missed else 0


def print_table(rows: list[Row]) -> None:
    heads = ("FIGURE", "UNIT", "OURS", "PEER", "", "RATIO", "MUST")
    lines = [heads]
    for row in rows:
        must = "" if row["must"] is None else f"{row['must']:.3g}"
        numbers = f"{row['ours']:.4g}", row["peer_name"], f"{row['peer']:.4g}"
        lines.append((row["name"], row["unit"], *numbers, f"{row['ratio']:.3f}", must))
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
    for line in lines:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        )
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
