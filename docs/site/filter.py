#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Doxygen's INPUT_FILTER: prints a header or a page of this project as Doxygen wants it.

Headers keep plain // comments. The filter turns them into /// comments, makes the tables, lists and
code in them stand out, and links the error kinds to their descriptions. A file comment that
describes a class without a comment of its own becomes the comment of that class.

Pages keep the links of a code host. The filter gives each heading the anchor that code hosts derive
from its text, and turns links to pages and headers into references. A link to any other file becomes
plain text, because the site does not contain that file.

    filter.py FILE
"""

import html
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def error_kinds():
    text = (ROOT / "include/msb/error.h").read_text()
    body = re.search(r"enum class ErrorKind \{(.*?)\n\};", text, re.S).group(1)
    return re.findall(r"^\s*(k[A-Za-z]+),", body, re.M)


KINDS = re.compile(r"\b(" + "|".join(sorted(error_kinds(), key=len, reverse=True)) + r")\b")


def slug(heading):
    """Returns the anchor that code hosts give a heading."""
    text = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def page_label(path):
    return "mainpage" if path.name == "README.md" else "page_" + path.stem


def anchor_label(path, anchor):
    return f"{path.stem}_{anchor}"


# --- Headers ---


def described_class(text):
    """Returns the class without a comment that the file comment of a header describes, or None."""
    first = re.match(r"// (?:An? )?(\w+) (?:represents|carries|holds|is) ", text)
    if not first:
        return None
    declaration = re.search(rf"^(.*)\nclass MSB_EXPORT {first.group(1)} \{{", text, re.M)
    if not declaration or declaration.group(1).startswith("//"):
        return None
    return first.group(1)


def prose(text):
    """Escapes what Doxygen would take for a command, and links error kinds and pages."""
    text = re.sub(r"([\\@<>*#%])", r"\\\1", text)
    text = KINDS.sub(lambda m: f'@ref errors_{m.group(1).lower()} "{m.group(1)}"', text)
    return re.sub(r"\bdocs/(\w+)\.md\b", r'@ref page_\1 "docs/\1.md"', text)


def cell(text):
    text = html.escape(text, quote=False)
    return KINDS.sub(lambda m: f'@ref errors_{m.group(1).lower()} "{m.group(1)}"', text)


THROWS = r"(?:\w+ t|T)hrows "


def paragraph(lines):
    text = prose(" ".join(line.strip() for line in lines))
    # Each error on a line of its own: "Throws kX if …. Throws kY if …."
    sentences = re.split(rf"(?<=\.) (?={THROWS}@ref)", text)
    items = [("- " if re.match(rf"{THROWS}@ref", s) else "") + s for s in sentences]
    # Doxygen takes a comment of one line for a brief description, but only the first sentence is one.
    return [line for item in items for line in re.split(r"(?<=[a-z)]\.) ", item, maxsplit=1)]


def listing(lines):
    items = []
    for line in lines:
        if re.match(r"(\*|\d+\.) ", line):
            items.append(re.sub(r"^\* ", "- ", line))
        else:
            items[-1] += " " + line.strip()
    return [re.match(r"(- |\d+\. )", i).group(1) + prose(i.split(" ", 1)[1]) for i in items]


def column_of(lines):
    """Returns the column at which the second column of a table begins, or None."""
    starts = [m.end() for line in lines if (m := re.match(r"\s*\S.*?\s{2,}(?=\S)", line))]
    return max(set(starts), key=starts.count) if starts else None


def table(lines, column):
    """Returns an HTML table. A line without a second column is a heading; a first column that ends
    with a comma goes on in the next line."""
    rows = []
    for line in lines:
        left, right = line[:column].strip(), line[column:].strip()
        if line[column - 2 : column].strip():
            rows.append([line.strip()])
        elif left and not (rows and len(rows[-1]) == 2 and rows[-1][0].endswith(",")):
            rows.append([left, right])
        else:
            rows[-1] = [f"{rows[-1][0]} {left}".strip(), f"{rows[-1][1]} {right}".strip()]
    out = ["<table>"]
    for row in rows:
        if len(row) == 1:
            out.append(f'<tr><th colspan="2">{cell(row[0])}</th></tr>')
        else:
            out.append(f"<tr><td>{cell(row[0])}</td><td>{cell(row[1])}</td></tr>")
    return out + ["</table>"]


def indented(lines):
    width = min(len(line) - len(line.lstrip()) for line in lines if line.strip())
    lines = [line[width:] for line in lines]
    if re.match(r"(\*|\d+\.) ", lines[0]):
        return listing(lines)
    if any(line.rstrip().endswith((";", "{")) for line in lines):
        return ["@code{.cpp}", *lines, "@endcode"]
    column = column_of(lines)
    return table(lines, column) if column else ["@verbatim", *lines, "@endverbatim"]


def is_error(rendered):
    return re.match(f"- {THROWS}", rendered[0]) is not None


def render(lines):
    """Turns the lines of a comment, without their slashes, into those of a Doxygen comment."""
    out, last, i = [], [], 0
    while i < len(lines):
        if not lines[i].strip():
            i += 1
            continue
        deep, begin = lines[i].startswith("  "), i
        while i < len(lines) and (
            (lines[i].startswith("  ") or not lines[i].strip())
            if deep
            else (lines[i].strip() and not lines[i].startswith("  "))
        ):
            # "Throws kX" begins a paragraph of its own.
            if not deep and i > begin and re.match(THROWS, lines[i]):
                break
            i += 1
        block = lines[begin:i]
        while not block[-1].strip():
            block.pop()
        rendered = indented(block) if deep else paragraph(block)
        # Consecutive errors make one list; a blank line separates everything else.
        in_list = out and is_error(last) and is_error(rendered)
        out += ([] if in_list or not out else [""]) + rendered
        last = rendered
    return out


def header(path, text):
    lines = text.split("\n")
    class_name = described_class(text)
    out, file_comment, detached, i = [], None, [], 0
    while i < len(lines):
        line = lines[i]
        full = re.match(r"(\s*)//( |$)", line)
        trailing = re.match(r"(\s*[^\s}#/].*?)\s+// (.*)$", line)
        if full:
            indent, comment = full.group(1), []
            while i < len(lines) and re.match(r"\s*//( |$)", lines[i]):
                comment.append(re.sub(r"^\s*// ?", "", lines[i]))
                i += 1
            if file_comment is None:
                file_comment = render(comment)
                shown = [f"Declares msb::{class_name}."] if class_name else file_comment
                out += ["/// @file", *(f"/// {s}".rstrip() for s in shown)]
            elif i < len(lines) and not lines[i].strip():
                detached = comment  # It describes the declarations that follow.
            else:
                shown = render([*comment, *([""] if detached else []), *detached])
                out += [f"{indent}/// {s}".rstrip() for s in shown]
                detached = []
            continue
        if trailing:
            column = line.index("// ", len(trailing.group(1)))
            comment = [trailing.group(2)]
            while i + 1 < len(lines) and lines[i + 1].startswith(" " * column + "// "):
                i += 1
                comment.append(lines[i][column + 3 :])
            line = f"{trailing.group(1)}  ///< {' '.join(paragraph(comment))}"
        if class_name and line.startswith(f"class MSB_EXPORT {class_name} "):
            out += [f"/// {s}".rstrip() for s in file_comment]
        if not line.endswith("= delete;"):
            out.append(line.replace("[[nodiscard]] ", "").replace(" = {};", ";"))
        i += 1
    return "\n".join(out)


# --- Pages ---


def link(page, text, target):
    target, _, anchor = target.partition("#")
    if re.match(r"[a-z]+:", target):
        return f"[{text}]({target}{'#' + anchor if anchor else ''})"
    if not target:
        target = page.name
    path = (page.parent / target).resolve()
    if is_page(path):
        label = anchor_label(path, anchor) if anchor else page_label(path)
    elif path.suffix == ".h" and ROOT / "include" in path.parents:
        found = type_in(path, text)
        label = found[1] if found else path.relative_to(ROOT / "include")
    else:
        return text
    return f"[{text.replace('`', '')}](@ref {label})"  # Doxygen has no code spans in references.


def type_in(path, text):
    """Returns ("class" or "struct", its qualified name) if the text of a link to a header is the
    name of a type that the header declares, and None otherwise."""
    name = text.strip("`").removeprefix("msb::")
    last = name.rpartition("::")[2]
    keyword = re.search(rf"^(class|struct)(?: MSB_EXPORT)? {last} ", path.read_text(), re.M)
    return (keyword.group(1), "msb::" + name) if keyword else None


def is_page(path):
    """Returns whether the site has the page. The README in the root is for code hosts only."""
    return (path.suffix == ".md" and path.parent in (ROOT / "docs", ROOT) and path.is_file()
            and path != ROOT / "README.md")


def image(page, alt, target):
    path = (page.parent / target).resolve()
    return f'<div class="diagram"><img src="{path.name}" alt="{html.escape(alt)}"/></div>'


def code_span(code):
    """Returns a code span in which Doxygen takes quotation marks and backslashes literally."""
    code = " ".join(code.split())
    if code.count('"') % 2 == 0:
        return f"``{code}``"
    return "<code>" + html.escape(code).replace("\\", "\\\\") + "</code>"


def inline(page, text):
    """Rewrites the links and the code spans of a paragraph."""
    label = r"((?:[^\[\]`]|`[^`]+`)+)"
    text = re.sub(rf"(`[^`]+`)(?!\])|!\[{label}\]\(([^)\s]+)\)|\[{label}\]\(([^)\s]+)\)",
                  lambda m: m.group(1)
                  or (image(page, m.group(2), m.group(3)) if m.group(2)
                      else link(page, " ".join(m.group(4).split()), m.group(5))), text)
    return re.sub(r"`([^`]+)`", lambda m: code_span(m.group(1)), text)


def drawing(lines):
    """Turns the edges of a Mermaid graph into a Graphviz graph."""
    edges = [line.strip().replace("-->", "->") + ";" for line in lines if "-->" in line]
    style = ('bgcolor="transparent"; node [shape=box, style="rounded,filled", fillcolor="#e8eefc", '
             'color="#5b7bd5", fontname="sans-serif", fontsize=11]; edge [color="#7a869a"];')
    return ["@dot", "digraph modules {", style, *edges, "}", "@enddot"]


def page(path, text):
    out, lines, i = [], text.split("\n"), 0
    while i < len(lines):
        line = lines[i]
        fence = re.match(r"(```+|~~~+)(\w*)", line)
        heading = re.match(r"(#+) (.*)$", line)
        if fence:
            end = next(j for j in range(i + 1, len(lines)) if lines[j].startswith(fence.group(1)))
            if fence.group(2) == "mermaid":
                out += drawing(lines[i + 1 : end])
            else:
                language = "cpp" if fence.group(2) == "cpp" else "unparsed"
                out += [f"@code{{.{language}}}", *lines[i + 1 : end], "@endcode"]
            i = end + 1
            continue
        if line.startswith("<!--"):
            while "-->" not in lines[i]:
                i += 1
        elif heading:
            level, title = heading.groups()
            label = page_label(path) if level == "#" else anchor_label(path, slug(title))
            out.append(f"{level} {title} {{#{label}}}")
            if level == "#" and text.count("\n## ") > 4:
                out += ["", "[TOC]"]
        elif line.strip() and (not line.startswith("    ") or out[-1].strip()):
            begin = i
            while i + 1 < len(lines) and lines[i + 1].strip() and not re.match("#|```", lines[i + 1]):
                i += 1
            out.append(inline(path, "\n".join(lines[begin : i + 1])))
        else:
            out.append(line)
        i += 1
    return "\n".join(out)


def main():
    path = pathlib.Path(sys.argv[1]).resolve()
    # The license identifier is not documentation.
    text = re.sub(r"^// SPDX-.*\n(//\n)?", "", path.read_text())
    sys.stdout.write(header(path, text) if path.suffix == ".h" else page(path, text))


if __name__ == "__main__":
    main()
