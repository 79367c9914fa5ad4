#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Fails if a source uses a name of a header that it includes neither itself nor through others.

A unity build compiles such a source if an earlier one of its batch includes the header, so it fails
first on a machine whose batches differ.
"""

import functools
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
FOLDERS = ("include", "src", "tools", "tests", "examples")
# What the sources declare in a namespace begins in the first column.
OF_NAMESPACE = re.compile(
    r"^(?:class|struct|enum class|using) (?:MSB_EXPORT )?(\w+)\b(?!;)"
    r"|^(?:inline )?constexpr [^=({]*?\b(\w+)(?:\[\])? ?[={]"
    r"|^(?!using|class|struct|enum|namespace|template|static|#)[A-Za-z[][^=;{}()]*?[ &*](\w+)\(",
    re.MULTILINE)
# What they declare elsewhere: members, local names, and types that another header defines.
ELSEWHERE = re.compile(
    r"^ *(?:friend )?(?:class|struct|enum class|using) (\w+)"
    r"|^ +(?:static )?constexpr [^=({]*?\b(\w+) ?[={]"
    r"|^ +(?=\S)(?!return|throw|else|case)[\w:<>,*&\[\] ]+[ *&](\w+)\("
    r"|^ +(\w+)\(\w[^;()]*\) *[:{]"
    r"|^ +(?=\S)(?!return|throw)(?:std::function<.*>|\w+) (\w+);", re.MULTILINE)
LITERAL_OR_COMMENT = re.compile(r'R"(\w*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|//[^\n]*', re.DOTALL)
NAMESPACE = re.compile(r"^namespace ([\w:]+) {", re.MULTILINE)
USE = re.compile(r"(?<![\w.>:~])((?:\w+::)*)([A-Z]\w*|k[A-Z]\w*)\b")


class Source:
    """What one file includes, declares and uses."""

    def __init__(self, path):
        text = path.read_text()
        folders = (ROOT / "include", path.parent, ROOT)
        self.includes = {
            folder / header
            for header in re.findall(r'^#include "([^"]+)"', text, re.MULTILINE)
            for folder in folders if (folder / header).exists()}
        text = LITERAL_OR_COMMENT.sub('""', text)
        self.namespaces = set(NAMESPACE.findall(text))
        self.of_namespace = names(OF_NAMESPACE, text)
        self.declared = self.of_namespace | names(ELSEWHERE, text)
        self.uses = set(USE.findall(text))


def names(pattern, text):
    """Returns what the groups of pattern match in text."""
    return {next(filter(None, groups)) for groups in pattern.findall(text)}


def enclosing(namespaces):
    """Returns namespaces and those that they are in."""
    parts = [namespace.split("::") for namespace in namespaces]
    return {"::".join(part[:end + 1]) for part in parts for end in range(len(part))}


def main():
    sources = {
        path: Source(path)
        for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in (".h", ".cc")}
    headers = {}  # The headers that declare a qualified name.
    for path, source in sources.items():
        if path.suffix == ".h":
            for namespace in source.namespaces:
                for name in source.of_namespace:
                    headers.setdefault(f"{namespace}::{name}", set()).add(path)

    @functools.cache
    def declared_for(path):
        """Returns what path and all files that it includes declare."""
        found, seen, todo = set(), set(), {path}
        while todo:
            current = todo.pop()
            seen.add(current)
            if current in sources:
                found |= sources[current].declared
                todo |= sources[current].includes - seen
        return found

    failed = False
    for path, source in sources.items():
        for qualifier, name in sorted(source.uses):
            if name in declared_for(path):
                continue
            for namespace in enclosing(source.namespaces):
                for header in headers.get(f"{namespace}::{qualifier}{name}", ()):
                    failed = True
                    print(f"{path.relative_to(ROOT)} must include {header.relative_to(ROOT)} for "
                          f"{qualifier}{name}", file=sys.stderr)
    return failed


if __name__ == "__main__":
    sys.exit(main())
