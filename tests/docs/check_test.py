#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tests that check.py finds every block of a page, and refuses blocks that are wrong or untested.

   check_test.py ARGUMENT...    the arguments are passed on to check.py
"""

import pathlib
import subprocess
import sys
import tempfile
import unittest

CHECK = pathlib.Path(__file__).with_name("check.py")
ARGUMENTS = []


def check(text):
    """Runs check.py on a page. Returns its exit status and output, without the page's directory."""
    with tempfile.TemporaryDirectory() as work:
        page = pathlib.Path(work, "page.md")
        page.write_text(text, encoding="utf-8")
        done = subprocess.run([sys.executable, CHECK, *ARGUMENTS, page], text=True, check=False,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        return done.returncode, done.stdout.replace(work + "/", "")


class CheckTest(unittest.TestCase):
    def expect_refused(self, text, *errors):
        """Each error is of the form LINE: MESSAGE."""
        status, output = check(text)
        self.assertEqual(status, 1, output)
        for error in errors:
            line, message = error.split(": ", 1)
            self.assertRegex(output, rf"page\.md:{line}:.*{message}")

    def expect_passed(self, text, summary):
        status, output = check(text)
        self.assertEqual(status, 0, output)
        self.assertIn(summary, output)

    def test_refuses_blocks_without_a_test(self):
        self.expect_refused("```\nanything\n```\n\n```rust\nfn main() {}\n```\n",
                            "2: nothing tests this block", "6: nothing tests this block.* rust")

    def test_refuses_markers_that_are_wrong(self):
        self.expect_refused("<!-- test: none -->\n```text\nx\n```\n", "1: needs a reason")
        self.expect_refused("<!-- test: run -->\n\nNo block.\n", "1: no code block follows")
        self.expect_refused("<!-- test: run, fast -->\n```sh\ntrue\n```\n",
                            "1: unknown option 'fast'")
        self.expect_refused("<!-- test: by tests/none.sh -->\n    ls\n", "2: does not exist")
        self.expect_refused("<!-- test: compile -->\n```sh\nls\n```\n", "3: cannot have the test")
        self.expect_refused("```sh\nls\n```\n<!-- test: output -->\n```text\nx\n```\n",
                            "6: the block before is not run")
        self.expect_refused("```sh\nls\n", "1: does not end")

    def test_finds_blocks_in_lists_and_no_others(self):
        self.expect_refused(
            "Text.\n\n    nonsense-1\n\n* A list whose text goes on\n      on a line of its own.\n\n"
            "      nonsense-2\n\n  1. nested\n\n         nonsense-3\n\n* next\n\nEnd\n    of text.\n",
            "3: no program 'nonsense-1'", "8: no program 'nonsense-2'",
            "12: no program 'nonsense-3'")
        self.expect_passed("Some text\n    goes on.\n\n* a\n\n  b\n\n<!--\n    x\n-->\n\n    ls\n",
                           "1 blocks in 1 pages: 1 check")

    def test_refuses_blocks_that_it_cannot_read(self):
        for text in ("> ```cpp\n> int a;\n> ```\n", "* ```sh\n  ls\n  ```\n", "<pre>ls</pre>\n",
                     "@code\nint a;\n@endcode\n", ">     ls\n"):
            self.expect_refused(text, "1: write it as a fenced block")

    def test_refuses_commands_that_do_not_exist(self):
        self.expect_refused(
            "```sh\nfor\n```\n\n```sh\nls | qemu-imgs info x\n```\n\n```sh\ntests/run.sh --soaks\n"
            "```\n\n```sh\ncmake --preset fast\n```\n\n```sh\ncmake -B build -DMSB_FAST=ON\n```\n\n"
            "```sh\nbuild/release/tests/none_tests\n```\n\n```sh\ntests/none.sh\n```\n",
            "2: bash cannot read", "6: no program 'qemu-imgs'", "10: no option '--soaks'",
            "14: no preset 'fast'", "18: no option 'MSB_FAST'", "22: no program",
            "26: not a file of the project")
        self.expect_refused("    msb-snapshot --home h lists\n\nText.\n\n    msb-snapshot ls --jsn\n",
                            "1: no command 'lists'", "5: no option '--jsn'")
        self.expect_passed("    tests/run.sh --soak 5  # it's a comment\n    cmake --preset debug\n"
                           "    build/debug/tests/unit_tests --gtest_filter='A.*' | tail -n 1\n"
                           "    msb-snapshot export x - | ssh host msb-snapshot import --name y -\n"
                           "    build/release/tests/soak --seconds 1\n",
                           "1 check")

    def test_runs_commands_and_compares_what_they_print(self):
        self.expect_passed("<!-- test: run -->\n    echo 1-2 > file; cat file\n\n"
                           "<!-- test: output -->\n```text\n1-…\n```\n\n"
                           "<!-- test: run -->\n```console\n$ cat file\n1-2\n$ true\n```\n",
                           "3 blocks in 1 pages: 1 output, 2 run")
        self.expect_passed("<!-- test: run -->\n    echo 7 > seven\n\n<!-- test: run -->\n```cpp\n"
                           "std::cout << std::ifstream(\"seven\").rdbuf();\n```\n\n"
                           "<!-- test: output -->\n```text\n7\n```\n",
                           "3 blocks in 1 pages: 1 output, 2 run")
        self.expect_refused("<!-- test: run -->\n    echo 1\n\n<!-- test: output -->\n```text\n2\n"
                            "```\n\n<!-- test: run -->\n```console\n$ echo 3\n4\n```\n\n"
                            "<!-- test: run -->\n    echo 5; false\n",
                            "6: the output differs", r"11: \$ echo 3", "16: exit with 1")

    def test_compiles_and_runs_cpp(self):
        self.expect_passed(
            "<!-- test: compile\nint Undefined();\n-->\n```cpp\nreturn (void)Undefined();\n```\n\n"
            "```cpp\nauto s = msb::Snapshot::List(ctx, client);\n```\n\n"
            "<!-- test: run, continue\nstd::cout << 0;\n-->\n```cpp\nstd::cout << s.size();\n```\n"
            "\n<!-- test: output -->\n```text\n00\n```\n\n"
            "<!-- test: run, root=/var/lib -->\n```cpp\n#include <fstream>\nint main() {\n"
            "  return std::ofstream(\"/var/lib/x\") && std::ifstream(\"base.ext4\") ? 0 : 1;\n}\n"
            "```\n", "5 blocks in 1 pages: 2 compile, 1 output, 2 run")

    def test_refuses_cpp_that_does_not_compile_or_fails(self):
        status, output = check("```cpp\nmsb::Client ok;\n```\n\nText.\n\n"
                               "```cpp\nmsb::Client::Nothing();\n```\n")
        self.assertEqual(status, 1)
        self.assertRegex(output, r"page\.md:8:14: error: .*Nothing")
        self.expect_refused("<!-- test: run -->\n```cpp\nint main() { return 3; }\n```\n",
                            "3: exits with 3")

    def test_configures_cmake_and_parses_json(self):
        self.expect_refused("```cmake\nfind_package(msb 99 REQUIRED)\n```\n\n```json\n{,}\n```\n",
                            "2: cannot configure", "6: not JSON")
        self.expect_passed("```cmake\nfind_package(msb REQUIRED)\n"
                           "target_link_libraries(app PRIVATE msb::msb)\n```\n\n```json\n[1]\n```\n",
                           "1 configure, 1 parse")

    def test_pages_and_tests_name_each_example(self):
        root = CHECK.parents[2]
        page = (root / "docs/examples.md").read_text(encoding="utf-8")
        for example in root.glob("examples/*.cc"):
            self.assertIn(f"(../examples/{example.name})", page)
            if example.stem != "quickstart":  # examples/quickstart.sh runs it.
                expected = CHECK.parent / f"examples/{example.stem}.txt"
                self.assertTrue(expected.is_file(), expected)


if __name__ == "__main__":
    ARGUMENTS = sys.argv[1:]
    unittest.main(argv=sys.argv[:1])
