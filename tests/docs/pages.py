# SPDX-License-Identifier: Apache-2.0
"""Finds the code blocks of Markdown pages, and the markers that say how each is tested.

A marker is an HTML comment directly before its block: <!-- test: ACTION[, OPTION...] -->.
docs/contributing.md describes the actions. The further lines of a comment are code that belongs to
the block, but that readers do not see.
"""

import dataclasses
import re

LANGUAGES = {"c++": "cpp", "cc": "cpp", "bash": "sh", "shell": "sh"}
# What is done with a block without a marker. Blocks in other languages need one.
DEFAULT_ACTIONS = {"cpp": "compile", "cmake": "configure", "sh": "check", "console": "check",
                   "json": "parse", "mermaid": "check"}
ACTIONS = {"cpp": {"compile", "run"}, "cmake": {"configure"}, "sh": {"check", "run"},
           "console": {"check", "run"}, "json": {"parse"}, "mermaid": {"check"}}
# Code blocks of forms that Reader does not read.
UNREADABLE = re.compile(r"\s*(<pre\b|[@\\](code|verbatim)\b|(>|[-*+] |\d+[.)] )\s*(```|~~~)|> {5})")
OPTIONS = {"namespace", "continue", "root"}


class PageError(Exception):
    """An error of a page, with its position and what its author should do."""

    def __init__(self, page, line, message):
        super().__init__(f"{page}:{line}: {message}")


@dataclasses.dataclass
class Marker:
    """The test that a comment asks for."""

    line: int
    action: str
    reason: str = ""  # Of "none", and the file of "by".
    options: dict = dataclasses.field(default_factory=dict)
    hidden: list = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Block:
    """A code block: the page, the number of its first line of code, and its lines."""

    page: str
    line: int
    language: str  # Empty for a fenced block that names none; "sh" for an indented block.
    lines: list
    marker: Marker = None

    @property
    def text(self):
        return "".join(line + "\n" for line in self.lines)

    @property
    def action(self):
        return self.marker.action if self.marker else DEFAULT_ACTIONS[self.language]

    def option(self, name):
        return self.marker.options.get(name) if self.marker else None

    def error(self, message):
        return PageError(self.page, self.line, message)


def parse_marker(page, line, comment):
    """Returns the marker in a comment, or None if the comment is not a marker."""
    first, *hidden = comment.split("\n")
    match = re.match(r"\s*test\s*:\s*(.*)", first)
    if not match:
        return None
    words = match[1].strip()
    action, _, rest = words.partition(",")
    action, rest = action.strip(), rest.strip()
    if action == "none":
        reason = re.match(r"because (\S.*)", rest)
        if not reason:
            raise PageError(page, line, "a block that is not tested needs a reason: write "
                            "<!-- test: none, because REASON -->")
        return Marker(line, "none", reason=reason[1])
    if action.startswith("by "):
        return Marker(line, "by", reason=action[3:].strip())
    options = {}
    for option in filter(None, (word.strip() for word in rest.split(","))):
        name, _, value = option.partition("=")
        if name not in OPTIONS:
            raise PageError(page, line, f"the marker has an unknown option '{name}'; there are "
                            + ", ".join(sorted(OPTIONS)))
        options[name] = value or True
    while hidden and not hidden[-1].strip():
        hidden.pop()
    return Marker(line, action, options=options, hidden=hidden)


class Reader:
    """Reads the blocks of one page, as far as CommonMark matters for this."""

    def __init__(self, page, text):
        self.page = page
        self.lines = text.expandtabs(4).split("\n")
        self.at = 0
        self.marker = None
        self.blocks = []
        self.lists = []  # The columns at which the text of the enclosing list items begins.
        self.in_paragraph = False

    def read(self):
        while self.at < len(self.lines):
            line = self.lines[self.at]
            if not line.strip():
                self.in_paragraph = False
                self.at += 1
                continue
            indent = self.enter(line)
            text = line[indent:]
            if text.lstrip().startswith("<!--") and len(text) - len(text.lstrip()) < 4:
                self.read_comment()
            elif re.match(r" {0,3}(```|~~~)", text):
                self.read_fenced(indent)
            elif text.startswith("    ") and not self.in_paragraph:
                self.read_indented(indent)
            else:
                self.read_text(line)
        self.drop_marker()
        return self.blocks

    def enter(self, line):
        """Leaves the list items that the line is not part of. Returns where the item's text begins.
        """
        indent = len(line) - len(line.lstrip())
        while self.lists and indent < self.lists[-1] and not self.in_paragraph:
            self.lists.pop()
        item = re.match(r" *([-*+]|\d+[.)]) ", line)
        while item and self.lists and indent < self.lists[-1]:
            self.lists.pop()
        return min(self.lists[-1], indent) if self.lists else 0

    def read_text(self, line):
        self.drop_marker()
        if UNREADABLE.match(line):
            raise PageError(self.page, self.at + 1, "the test cannot find this code block: write "
                            "it as a fenced block on lines of its own, outside quotations")
        item = re.match(r" *([-*+]|\d+[.)]) +", line)
        if item and len(item[0]) - (self.lists[-1] if self.lists else 0) <= 8:
            self.lists.append(len(item[0]))
        self.in_paragraph = not re.match(r" {0,3}(#{1,6} |---+$|\|)", line)
        self.at += 1

    def read_comment(self):
        start = self.at
        while self.at < len(self.lines) and "-->" not in self.lines[self.at]:
            self.at += 1
        if self.at == len(self.lines):
            raise PageError(self.page, start + 1, "the comment does not end")
        self.at += 1
        comment = "\n".join(self.lines[start:self.at])
        comment = comment[comment.index("<!--") + 4:comment.rindex("-->")]
        marker = parse_marker(self.page, start + 1, comment)
        if marker:
            self.drop_marker()
            self.marker = marker
        self.in_paragraph = False

    def read_fenced(self, indent):
        opening = re.match(r" *(`{3,}|~{3,}) *([^\s`{]*)", self.lines[self.at])
        start = self.at + 1
        closing = re.compile(r" *" + opening[1][0] + "{%d,} *$" % len(opening[1]))
        self.at = start
        while self.at < len(self.lines) and not closing.match(self.lines[self.at]):
            self.at += 1
        if self.at == len(self.lines):
            raise PageError(self.page, start, "the code block does not end")
        self.add(start, indent, self.at, LANGUAGES.get(opening[2], opening[2]))
        self.at += 1

    def read_indented(self, indent):
        start = end = self.at
        while self.at < len(self.lines):
            line = self.lines[self.at]
            if line.strip() and not line.startswith(" " * (indent + 4)):
                break
            self.at += 1
            if line.strip():
                end = self.at
        self.add(start, indent + 4, end, "sh")

    def add(self, start, indent, end, language):
        lines = [line[min(indent, len(line) - len(line.lstrip())):]
                 for line in self.lines[start:end]]
        self.blocks.append(Block(self.page, start + 1, language, lines, self.marker))
        self.marker = None
        self.in_paragraph = False

    def drop_marker(self):
        if self.marker:
            raise PageError(self.page, self.marker.line, "no code block follows this marker; put "
                            "it directly before its block")


def check_marker(root, block, previous):
    """Raises an error if the block has no test, or one that its language does not have."""
    language = block.language or "no language"
    if not block.marker:
        if block.language not in DEFAULT_ACTIONS:
            raise block.error(
                f"nothing tests this block, which has {language}. Name the language after the "
                f"fence ({', '.join(sorted(DEFAULT_ACTIONS))}); or, if it shows the output of the "
                "block before, which is run, put <!-- test: output --> before it; or "
                "<!-- test: none, because REASON -->")
        return
    marker = block.marker
    if marker.action == "output":
        if not previous or previous.action != "run":
            raise block.error("there is no output to compare with: the block before is not run. "
                              "Put <!-- test: run --> before that one")
    elif marker.action == "by":
        if not (root / marker.reason).is_file():
            raise block.error(f"{marker.reason} does not exist; name the file, relative to the "
                              "root of the project, that runs these lines")
    elif marker.action != "none" and marker.action not in ACTIONS.get(block.language, ()):
        actions = sorted(ACTIONS.get(block.language, ())) + ["by FILE", "none, because REASON"]
        raise block.error(f"a block in {language} cannot have the test '{marker.action}'; it can "
                          f"have: {'; '.join(actions)}")


def read_page(root, page):
    """Returns the blocks of a page that have a test, and errors about the others.

    The page is given by its path, relative to root. Raises PageError if the page is malformed.
    """
    blocks, errors = [], []
    for block in Reader(page, (root / page).read_text(encoding="utf-8")).read():
        try:
            check_marker(root, block, blocks[-1] if blocks else None)
            blocks.append(block)
        except PageError as error:
            errors.append(error)
    return blocks, errors


def all_pages(root):
    """Returns the paths of all pages, relative to root."""
    pages = list(root.glob("*.md")) + list(root.glob("docs/**/*.md"))
    return sorted(str(page.relative_to(root)) for page in pages)
