# SPDX-License-Identifier: Apache-2.0
"""The directory in which the blocks are built and run, and the installation of msb that they use."""

import os
import re
import subprocess

TIMEOUT_SECONDS = 600  # So that a program that hangs fails the test.


class Workplace:
    """Runs programs in a directory of their own for each page."""

    def __init__(self, root, build, work, compiler):
        self.root = root
        self.build = build
        self.work = work
        self.compiler = compiler
        self._prefix = None

    def prefix(self):
        """Installs the build once, and returns where."""
        if self._prefix is None:
            prefix = self.work / "prefix"
            done = subprocess.run(["cmake", "--install", self.build, "--prefix", prefix],
                                  capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise RuntimeError(f"cannot install {self.build}; build it first:\n{done.stderr}")
            self._prefix = prefix
        return self._prefix

    def pkg_config(self, *arguments):
        """Returns the words that pkg-config prints for the installed msb."""
        found = next(self.prefix().rglob("msb.pc"))
        done = subprocess.run(["pkg-config", *arguments, "msb"], capture_output=True, text=True,
                              check=True, env=dict(os.environ, PKG_CONFIG_PATH=str(found.parent)))
        return done.stdout.split()

    def directory(self, page):
        """Returns the directory in which the blocks of a page run, which share it."""
        directory = self.work / re.sub(r"\W", "_", page)
        if not directory.exists():
            directory.mkdir()
            # The disk image that pages call base.ext4 or base.img.
            with open(directory / "base.ext4", "wb") as image:
                image.truncate(64 << 20)
                image.seek(1080)
                image.write(b"\x53\xef")  # The magic number of ext4.
            (directory / "base.img").hardlink_to(directory / "base.ext4")
        return directory

    def run(self, page, command):
        """Runs a command in the directory of a page. Returns its exit status and its output."""
        directory = self.directory(page)
        programs = [self.build / "tools/msb-snapshot", self.build / "examples"]
        environment = dict(
            os.environ, HOME=str(directory), MSB_HOME=str(directory / "home"),
            MSB_BACKEND="local", TMPDIR=str(directory),
            PATH=os.pathsep.join([*map(str, programs), os.environ["PATH"]]))
        try:
            done = subprocess.run(command, cwd=directory, env=environment, text=True, check=False,
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, timeout=TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            return 124, f"it did not end within {TIMEOUT_SECONDS} s"
        return done.returncode, done.stdout


def differs(expected, found):
    """Returns a description of how output differs from what a page shows, or None.

    "…" in the page stands for any text in a line, and a line that is only "…" for any lines.
    """
    pattern = ""
    for line in expected.rstrip("\n").split("\n"):
        if line.strip() == "…":
            pattern += r"(?:[^\n]*\n)*?"
        else:
            pattern += "[^\n]*?".join(map(re.escape, line.rstrip().split("…"))) + r"[ ]*\n"
    if re.fullmatch(pattern, found.rstrip("\n") + "\n"):
        return None
    return (f"the output differs from what is expected, in which '…' matches any text\n"
            f"--- expected\n{expected.rstrip()}\n--- found\n{found.rstrip()}")
