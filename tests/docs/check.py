#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tests each code block of the documentation: compiles, configures, checks or runs it.

   tests/docs/check.py [--build DIR] [--compiler COMMAND] [PAGE...]

Without pages, tests README.md, the other pages in the root, and docs/. docs/contributing.md
describes how blocks are marked.
"""

import argparse
import collections
import json
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True  # The directory of the sources stays as it is.

import cpp_blocks
import shell_blocks
from pages import PageError, all_pages, read_page
from workplace import Workplace, differs

ROOT = pathlib.Path(__file__).resolve().parents[2]
MERMAID = ("graph", "flowchart", "sequenceDiagram", "stateDiagram", "classDiagram", "erDiagram")


def configure(place, block, number):
    """Configures a project that consists of the block, with a target "app" unless it makes one."""
    project = place.work / f"cmake_{number}"
    (project / "third_party").mkdir(parents=True)
    (project / "third_party/msb").symlink_to(place.root)
    (project / "main.cc").write_text("int main() {}\n", encoding="utf-8")
    lines = ["cmake_minimum_required(VERSION 3.25)", "project(page LANGUAGES CXX)"]
    lines += block.marker.hidden if block.marker else []
    if "add_executable(" not in block.text:
        lines.append("add_executable(app main.cc)")
    (project / "CMakeLists.txt").write_text("\n".join(lines) + "\n" + block.text, encoding="utf-8")
    command = ["cmake", "-S", project, "-B", project / "build",
               f"-DCMAKE_PREFIX_PATH={place.prefix()}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise block.error(f"CMake cannot configure this block:\n{done.stderr}")


def check_block(place, block, number):
    """Tests a block that is not C++. Returns its output if it was run."""
    if block.language in ("sh", "console"):
        if block.action in ("check", "run", "by"):
            shell_blocks.check(place.root, block)
        if block.action == "run":
            return shell_blocks.run(place, block, differs)
    elif block.language == "cmake" and block.action == "configure":
        configure(place, block, number)
    elif block.language == "json" and block.action == "parse":
        try:
            json.loads(block.text)
        except ValueError as error:
            raise block.error(f"this is not JSON: {error}. If it is shortened, mark it "
                              "<!-- test: none, because REASON -->")
    elif block.language == "mermaid" and not re.match(r"\s*(%s)\b" % "|".join(MERMAID),
                                                      block.text):
        raise block.error("a mermaid block begins with one of " + ", ".join(MERMAID))
    return None


def test(place, blocks):
    """Tests blocks, and returns the errors. Those that are run, run in the order of the page."""
    cpp = [block for block in blocks if block.language == "cpp"
           and block.action in ("compile", "run")]
    errors, commands = cpp_blocks.compile_all(place, cpp)
    output = None  # Of the block before.
    for number, block in enumerate(blocks):
        try:
            if id(block) in commands:
                output = cpp_blocks.run(place, block, commands[id(block)])
            elif block.action != "output":
                output = check_block(place, block, number)
            elif output is not None and (difference := differs(block.text, output)):
                raise block.error(difference)
        except PageError as error:
            errors.append(error)
            output = None
    return errors


def main():
    parser = argparse.ArgumentParser(description="Tests the code blocks of the documentation.")
    parser.add_argument("--root", type=pathlib.Path, default=ROOT, help="the project")
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build/release",
                        help="a build of msb (default: build/release)")
    parser.add_argument("--compiler", type=shlex.split, default=["c++"],
                        help="the command that compiles (default: c++)")
    parser.add_argument("pages", nargs="*", help="pages, relative to the root of the project")
    arguments = parser.parse_args()
    root = arguments.root.resolve()
    errors, blocks = [], []
    pages = arguments.pages or all_pages(root)
    for page in pages:
        try:
            found, wrong = read_page(root, page)
            blocks += found
            errors += wrong
        except (OSError, PageError) as error:
            errors.append(error)
    with tempfile.TemporaryDirectory(prefix="msb-docs-") as work:
        place = Workplace(root, arguments.build.resolve(), pathlib.Path(work), arguments.compiler)
        try:
            errors += test(place, blocks)
        except (PageError, RuntimeError) as error:
            errors.append(error)
    for error in errors:
        print(error, file=sys.stderr)
    counts = collections.Counter(block.action for block in blocks)
    print(f"{len(blocks)} blocks in {len(pages)} pages: "
          + ", ".join(f"{count} {action}" for action, count in sorted(counts.items())))
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
