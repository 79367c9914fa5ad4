#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks the links of all Markdown pages: files and headings exist, each page in docs/ is listed in
docs/README.md, and each drawing is used. With a directory, checks the links of the site built there.

    check_links.py         checks the pages that git knows
    check_links.py DIR     checks the HTML files in DIR
"""

import pathlib
import re
import subprocess
import sys
import urllib.parse

sys.dont_write_bytecode = True

from filter import ROOT, slug


def without_code(text):
    text = re.sub(r"^(```+|~~~+).*?^\1", "", text, flags=re.M | re.S)
    return re.sub(r"`[^`]*`", "", re.sub(r"\[`([^`]*)`\]", r"[\1]", text))


def anchors(page, cache={}):
    """Returns the anchors of the headings of a page."""
    if page not in cache:
        text = re.sub(r"^(```+|~~~+).*?^\1", "", page.read_text(), flags=re.M | re.S)
        names = []
        for heading in re.findall(r"^#+ (.*)$", text, re.M):
            base, count = slug(heading), sum(n == slug(heading) for n in names)
            names.append(f"{base}-{count}" if count else base)
        cache[page] = set(names)
    return cache[page]


def check_pages():
    listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
                            cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    errors, targets = [], set()
    for page in sorted(ROOT / name for name in listed if (ROOT / name).exists()):
        for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text())):
            if re.match(r"[a-z]+:", target):
                continue
            path, _, anchor = target.partition("#")
            file = (page.parent / path).resolve() if path else page
            targets.add((page, file))
            where = f"{page.relative_to(ROOT)}: {target}: "
            if not file.exists():
                errors.append(where + "there is no such file")
            elif anchor and (file.suffix != ".md" or anchor not in anchors(file)):
                errors.append(where + "there is no such heading")
    index = ROOT / "docs/README.md"
    for page in (ROOT / "docs").glob("*.md"):
        if page != index and (index, page) not in targets:
            errors.append(f"docs/README.md: there is no link to {page.name}")
    for drawing in (ROOT / "docs/diagrams").glob("*.svg"):
        if drawing not in {file for _, file in targets}:
            errors.append(f"{drawing.relative_to(ROOT)}: no page shows this drawing")
    return errors


def check_site(directory):
    pages = {path.name: path.read_text() for path in pathlib.Path(directory).glob("*.html")}
    ids = {name: set(re.findall(r'\b(?:id|name)="([^"]+)"', text)) for name, text in pages.items()}
    errors = set()
    for name, text in pages.items():
        for target in re.findall(r'(?:href|src)="([^"]+)"', text):
            if re.match(r"[a-z]+:", target):
                continue
            path, _, anchor = target.partition("#")
            file = urllib.parse.unquote(path) or name
            if not (pathlib.Path(directory) / file).exists():
                errors.add(f"{name}: {target}: there is no such file")
            elif anchor and file in ids and anchor not in ids[file]:
                errors.add(f"{name}: {target}: there is no such anchor")
    return sorted(errors)


found = check_site(sys.argv[1]) if len(sys.argv) > 1 else check_pages()
print("\n".join(found), end="\n" if found else "")
sys.exit(1 if found else 0)
