# SPDX-License-Identifier: Apache-2.0
"""The real bbolt in a process beside the test; see oracle.go for what it understands."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

HERE = Path(__file__).parent


def build(directory: Path) -> Path:
    """Compiles oracle.go with Debian's bbolt; needs golang-go and its bbolt package."""
    binary = directory / "oracle"
    environment = dict(os.environ, GO111MODULE="off", GOPATH="/usr/share/gocode")
    environment.setdefault("GOCACHE", str(directory / "go-cache"))
    subprocess.run(
        ["go", "build", "-o", str(binary), str(HERE / "oracle.go")], check=True, env=environment
    )
    return binary


class Oracle:
    def __init__(self, binary: Path) -> None:
        self.process = subprocess.Popen(
            [str(binary)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def send(self, *words: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join(map(str, words)) + "\n")

    def receive(self) -> str:
        assert self.process.stdout is not None
        assert self.process.stdin is not None
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError("bbolt ended the program: it panicked")
        return line.rstrip("\n")

    def ask(self, *words: object) -> str:
        """One command, one answer: "OK...", or "ERR" and bbolt's own text."""
        self.send(*words)
        return self.receive()

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
