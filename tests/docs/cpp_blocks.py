# SPDX-License-Identifier: Apache-2.0
"""Compiles the C++ blocks of the pages, and runs those that are marked so.

A block with main() is a program, compiled by itself. All other blocks are compiled as one source:
each is the body of a function that has a Context, ctx, and a Client, client, unless it is marked
"namespace"; a block that is marked "continue" goes on in the function of the block before.
"""

import re
import subprocess

HEADERS = """algorithm atomic chrono cstdint cstdio cstdlib exception filesystem fstream functional
    iostream iterator map memory optional stdexcept stop_token string string_view system_error thread
    utility vector""".split()
WARNINGS = ["-Wall", "-Wextra", "-Werror", "-Wno-unused", "-Wno-vexing-parse"]
INCLUDE = re.compile(r"\s*#\s*include\b")


def is_program(block):
    return re.search(r"^int main\(", block.text, re.M) is not None


def placed(block):
    """Returns the lines of a block, hidden ones first, with their positions in the page."""
    marker = block.marker
    if marker and marker.hidden:
        yield f'#line {marker.line + 1} "{block.page}"'
        yield from marker.hidden
    yield f'#line {block.line} "{block.page}"'
    root = block.option("root")
    for line in block.lines:
        yield line.replace(root, ".") if root else line


def write_program(block, path):
    path.write_text("\n".join(placed(block)) + "\n", encoding="utf-8")


class Fragments:
    """The source that holds the blocks that are not programs."""

    def __init__(self):
        self.includes = [f"#include <{header}>" for header in HEADERS] + ['#include "msb/msb.h"']
        self.body = []
        self.runs = []  # The functions with a block to run: (number, block).
        self.page = None
        self.open = False
        self.count = 0

    def add(self, block):
        if block.page != self.page:
            self.end_page()
            self.page = block.page
            self.body.append("namespace page_" + re.sub(r"\W", "_", block.page) + " {")
        in_namespace = block.option("namespace")
        if block.option("continue"):
            if not self.open:
                raise block.error("there is no block before it on this page that it can continue")
        else:
            self.end_function()
            if not in_namespace:
                self.count += 1
                self.open = True
                self.body.append(f"void Block{self.count}([[maybe_unused]] const msb::Context& ctx,"
                                 " [[maybe_unused]] const msb::Client& client) {{")
        for line in placed(block):
            # A directive keeps its line in the page; the header must come before the namespace.
            (self.includes if INCLUDE.match(line) else self.body).append(line)
            if INCLUDE.match(line):
                self.body.append("")
        if block.action == "run":
            if in_namespace:
                raise block.error("a block that is marked namespace cannot be run; mark a block "
                                  "that uses it")
            self.runs.append((self.count, block))

    def end_function(self):
        if self.open:
            self.body.append("}}")
        self.open = False

    def end_page(self):
        self.end_function()
        if self.page:
            self.body.append("}")
        self.page = None

    def write(self, path):
        """Writes a program that runs the block whose number is its argument."""
        self.end_page()
        cases = [f'  if (block == {number}) page_{re.sub(chr(92) + "W", "_", block.page)}::'
                 f"Block{number}(ctx, client);" for number, block in self.runs]
        main = ["#line 1 \"main\"", "int main(int argc, char** argv) try {",
                "  const auto ctx = msb::Context::Background();",
                '  const msb::Client client({.home = "home", .backend = "local"});',
                "  const int block = argc > 1 ? std::atoi(argv[1]) : 0;", *cases,
                "  return block == 0;", "} catch (const std::exception& e) {",
                '  std::cout << e.what() << "\\n";', "  return 1;", "}"]
        path.write_text("\n".join(self.includes + self.body + main) + "\n", encoding="utf-8")


def build(place, source, block_runs):
    """Compiles a source, and links it if a block of it runs. Returns the program or an error."""
    built = source.with_suffix("" if block_runs else ".o")
    if block_runs:
        flags = place.pkg_config("--cflags", "--libs", "--static")
        library = next(place.prefix().rglob("libmsb.*"))
        # Functions that only blocks without a run refer to need no definition.
        flags += ["-ffunction-sections", "-Wl,--gc-sections", f"-Wl,-rpath,{library.parent}"]
    else:
        flags = ["-c", f"-I{place.root / 'include'}"]
    command = [*place.compiler, "-std=c++20", "-O0", *WARNINGS, source, "-o", built, *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        errors = done.stderr.splitlines()
        return None, "\n".join(errors[:60])
    return built, None


def compile_all(place, blocks):
    """Compiles the blocks. Returns errors, and the command that runs each block marked "run"."""
    errors, commands = [], {}
    fragments = Fragments()
    for number, block in enumerate(blocks):
        if not is_program(block):
            fragments.add(block)
            continue
        if block.option("namespace") or block.option("continue"):
            raise block.error("a block with main() is a program by itself, which is compiled "
                              "alone; it cannot be marked namespace or continue")
        source = place.work / f"program_{number}.cc"
        write_program(block, source)
        program, error = build(place, source, block.action == "run")
        if error:
            errors.append(block.error(f"the program does not compile:\n{error}"))
        elif block.action == "run":
            commands[id(block)] = [program]
    if fragments.body:
        source = place.work / "fragments.cc"
        fragments.write(source)
        program, error = build(place, source, bool(fragments.runs))
        if error:
            errors.append(RuntimeError(
                "a C++ block does not compile. It is the body of a function that has a Context, "
                "ctx, and a Client, client; docs/contributing.md says how to declare more:\n"
                + error))
        else:
            commands |= {id(block): [program, str(number)] for number, block in fragments.runs}
    return errors, commands


def run(place, block, command):
    """Runs a block that was compiled, and returns its output."""
    status, output = place.run(block.page, command)
    if status != 0:
        raise block.error(f"the program exits with {status}:\n{output}")
    return output
