# SPDX-License-Identifier: Apache-2.0
"""python -m libpod.kv check|dump|buckets|get|stats|pages|compact|backup FILE

Every command but compact and backup opens the file read-only and takes its
shared lock for as long as it runs. Exit status: 0, 1 where the check found a
fault or the file or key is not what was asked for, 2 for a wrong command line.
"""

from __future__ import annotations

import argparse
import json
import sys

from libpod.errors import LibpodError
from libpod.kv import Bucket, Database, Transaction
from libpod.kv.errors import BucketNotFound


def _check(db: Database, args: argparse.Namespace) -> int:
    faults = db.check()
    for page, reason in faults:
        print(reason if page is None else f"page {page}: {reason}")
    if not faults:
        print("OK")
    return 1 if faults else 0


def _dump(db: Database, args: argparse.Namespace) -> int:
    def write(text: bytes) -> None:
        sys.stdout.buffer.write(text)

    db.dump(write)
    sys.stdout.buffer.flush()
    return 0


def _bytes(text: str, as_hex: bool) -> bytes:
    return bytes.fromhex(text) if as_hex else text.encode()


def _shown(value: bytes) -> str:
    """UTF-8 text as it is, anything else in hex."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return "0x" + value.hex()
    return text if text.isprintable() else "0x" + value.hex()


def _walk(tx: Transaction, path: list[bytes]) -> Bucket:
    bucket = tx.bucket(path[0])
    for name in path[1:]:
        bucket = bucket.bucket(name)
    return bucket


def _buckets(db: Database, args: argparse.Namespace) -> int:
    with db.begin() as tx:
        for name in tx.buckets():
            print(_shown(name))
    return 0


def _get(db: Database, args: argparse.Namespace) -> int:
    path = [_bytes(part, args.hex) for part in args.path]
    if len(path) < 2:
        print("get needs the bucket's name and the key", file=sys.stderr)
        return 2
    with db.begin() as tx:
        value = _walk(tx, path[:-1]).get(path[-1])
    if value is None:
        print(f"no such key: {args.path[-1]}", file=sys.stderr)
        return 1
    sys.stdout.buffer.write(value.hex().encode() + b"\n" if args.hex else value)
    sys.stdout.buffer.flush()
    return 0


def _stats(db: Database, args: argparse.Namespace) -> int:
    with db.begin() as tx:
        json.dump({"file": db.stats(), "buckets": tx.stats()}, sys.stdout, indent=2)
    print()
    return 0


def _pages(db: Database, args: argparse.Namespace) -> int:
    print(f"{'page':>10} {'type':<8} {'items':>6} {'overflow':>8}")
    skip = 0
    for number, kind, count, overflow in db.pages():
        if skip > 0:
            skip -= 1
            continue
        print(f"{number:>10} {kind:<8} {count:>6} {overflow:>8}")
        if kind in ("branch", "leaf", "freelist"):
            skip = overflow
    return 0


def _compact(db: Database, args: argparse.Namespace) -> int:
    db.compact(args.output)
    return 0


def _backup(db: Database, args: argparse.Namespace) -> int:
    db.backup(args.output)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m libpod.kv", description="Looks into a database in bbolt's file format."
    )
    parser.add_argument("--timeout", type=float, default=None, help="seconds to wait for the lock")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, run, text in (
        ("check", _check, "verify every page; print OK, or each fault"),
        ("dump", _dump, "print everything in the canonical form"),
        ("buckets", _buckets, "list the top buckets"),
        ("get", _get, "print a value: BUCKET... KEY"),
        ("stats", _stats, "print counts and sizes as JSON"),
        ("pages", _pages, "list the pages as their headers say; a free page says what it was"),
        ("compact", _compact, "write a copy without free pages"),
        ("backup", _backup, "write a copy of the current commit, page by page"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("file")
        command.set_defaults(run=run)
        if name in ("compact", "backup"):
            command.add_argument("output")
        if name == "get":
            command.add_argument("path", nargs="+", metavar="NAME")
            command.add_argument("--hex", action="store_true", help="names and value are hex")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    run = args.run
    try:
        with Database(args.file, read_only=True, create=False, timeout=args.timeout) as db:
            return int(run(db, args))
    except BucketNotFound as error:
        print(f"{args.file}: no such bucket ({error.message})", file=sys.stderr)
    except (LibpodError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
