#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The navigation of the site, which is the list of pages in docs/README.md.

    navigation.py header      prints header.html with the navigation
    navigation.py mark DIR    marks in each page of DIR the link to the page itself
"""

import html
import pathlib
import re
import sys

sys.dont_write_bytecode = True

import filter as pages

ROOT = pages.ROOT
INDEX = ROOT / "docs/README.md"


def url(text, target):
    """Returns the file name that Doxygen gives the page of a link in docs/README.md."""
    path = (INDEX.parent / target).resolve()
    if path.suffix == ".md":
        return pages.page_label(path) + ".html"
    if found := pages.type_in(path, text):
        return found[0] + found[1].replace("::", "_1_1") + ".html"
    return path.name.replace(".", "_8") + ".html"


def navigation():
    out = []
    for line in INDEX.read_text().split("\n"):
        if line.startswith("## "):
            out += ["</ul>"] if out else []
            out += [f"<h2>{html.escape(line[3:])}</h2>", "<ul>"]
        elif entry := re.match(r"\* \[`?([^\]`]+)`?\]\(([^)]+)\)", line):
            name, target = entry.groups()
            out.append(f'<li><a href="$relpath^{url(name, target)}">{html.escape(name)}</a></li>')
    return "\n".join([*out, "</ul>"])


def mark(directory):
    for path in pathlib.Path(directory).glob("*.html"):
        text = path.read_text()
        link = f'<li><a href="{path.name}"'
        path.write_text(text.replace(link, link + ' aria-current="page"', 1))


if sys.argv[1] == "header":
    template = (ROOT / "docs/site/header.html").read_text()
    print(template.replace("@NAVIGATION@", navigation()), end="")
else:
    mark(sys.argv[2])
