#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs an example, and compares what it prints with what it should.

   check_example.py [--program PROGRAM] [--variable NAME] EXPECTED EXAMPLE [ARGUMENT...]

EXPECTED is a file with the output, in which "…" stands for any text. The example must exit with 0
and leave nothing in the directory for temporary files; it must refuse a wrong argument with its
usage. Exits with 77, which ctest counts as skipped, if the program or the environment variable
that it needs is absent. Environment variables in the arguments are expanded.
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True  # The directory of the sources stays as it is.

from workplace import TIMEOUT_SECONDS, differs


def run(command, work):
    return subprocess.run(command, env=dict(os.environ, TMPDIR=work, HOME=work), text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, check=False, timeout=TIMEOUT_SECONDS)


def check(expected, command):
    """Returns what is wrong, or None."""
    with tempfile.TemporaryDirectory() as work:
        done = run(command, work)
        if done.returncode != 0:
            return f"it exits with {done.returncode}:\n{done.stdout}"
        left = os.listdir(work)
        if left:
            return f"it leaves {left}"
        difference = differs(expected, done.stdout)
        if difference:
            return difference
        usage = run([command[0], "--wrong"], work)
        if usage.returncode != 2 or not usage.stdout.startswith("usage: "):
            return f"--wrong: exits with {usage.returncode}, and prints:\n{usage.stdout}"
        return None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--program", default="sh")
    parser.add_argument("--variable", default="PATH")
    parser.add_argument("expected", type=pathlib.Path)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    if shutil.which(arguments.program) is None or not os.environ.get(arguments.variable):
        print(f"skipped: there is no {arguments.program}, or {arguments.variable} is not set")
        return 77
    command = [os.path.expandvars(word) for word in arguments.command]
    error = check(arguments.expected.read_text(encoding="utf-8"), command)
    if error:
        print(f"{arguments.command[0]}: {error}", file=sys.stderr)
    return 1 if error else 0


if __name__ == "__main__":
    sys.exit(main())
