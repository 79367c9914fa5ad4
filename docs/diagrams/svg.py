# SPDX-License-Identifier: Apache-2.0
"""A small library for the drawings of the documentation: boxes, texts, arrows and bars in SVG. The
drawings follow the color scheme of the reader, and are narrow enough for a phone."""

import html

STYLE = """
text { font: 15px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1f2430 }
.small { font-size: 13px; fill: #5b6475 }
.bold { font-weight: 600 }
.mono { font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; font-size: 13.5px }
.small.mono { font-size: 12px }
rect { stroke-width: 1.5; rx: 7 }
.plain { fill: #f6f7fa; stroke: #c3cad6 }
.snapshot { fill: #e6edfd; stroke: #3a6ae0 }
.sandbox { fill: #e5f5ea; stroke: #2f8f4e }
.image { fill: #fdf0dc; stroke: #c07d1a }
.group { fill: none; stroke: #c3cad6; stroke-dasharray: 5 4 }
.arrow { stroke: #5b6475; stroke-width: 1.5; fill: none; marker-end: url(#head) }
.dashed { stroke-dasharray: 4 4 }
.head { fill: #5b6475 }
.rule { stroke: #c3cad6; stroke-width: 1 }
.ours { fill: #3a6ae0 } .theirs { fill: #a9b2c1 }
@media (prefers-color-scheme: dark) {
  text { fill: #dde2ec } .small { fill: #98a2b5 }
  .plain { fill: #1b1f29; stroke: #434b5c } .snapshot { fill: #1f2b4d; stroke: #6f97f5 }
  .sandbox { fill: #173524; stroke: #58b878 } .image { fill: #3b2d15; stroke: #d79c45 }
  .group { stroke: #434b5c } .arrow { stroke: #98a2b5 } .head { fill: #98a2b5 }
  .rule { stroke: #434b5c } .ours { fill: #6f97f5 } .theirs { fill: #5b6475 }
}
"""


class Drawing:
    """Collects the elements of a drawing. All sizes are in pixels."""

    def __init__(self, width, height, title):
        self.size, self.title, self.parts = (width, height), title, []

    def text(self, x, y, text, style="", anchor="start"):
        self.parts.append(f'<text x="{x}" y="{y}" class="{style}" text-anchor="{anchor}">'
                          f"{html.escape(text)}</text>")

    def box(self, x, y, width, height, style, *lines):
        """Draws a box with lines of text in its middle. A line may be a pair of text and style."""
        self.parts.append(f'<rect x="{x}" y="{y}" width="{width}" height="{height}" class="{style}"/>')
        top = y + height / 2 - (len(lines) - 1) * 10 + 5
        for i, line in enumerate(lines):
            text, look = (line, "") if isinstance(line, str) else line
            self.text(x + width / 2, round(top + 20 * i, 1), text, look, "middle")

    def group(self, x, y, width, height, label):
        self.box(x, y, width, height, "group")
        self.text(x + 10, y + 20, label, "small")

    def arrow(self, *points, style=""):
        path = " ".join(f"{'L' if i else 'M'}{x} {y}" for i, (x, y) in enumerate(points))
        self.parts.append(f'<path d="{path}" class="arrow {style}"/>')

    def bar(self, x, y, width, height, style):
        self.parts.append(f'<rect x="{x}" y="{y}" width="{round(width, 1)}" height="{height}" '
                          f'class="{style}" style="rx:3"/>')

    def rule(self, x1, y1, x2, y2):
        self.parts.append(f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" class="rule"/>')

    def write(self, path):
        width, height = self.size
        path.write_text(
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" role="img">\n'
            f"<title>{html.escape(self.title)}</title>\n<style>{STYLE}</style>\n"
            '<defs><marker id="head" markerWidth="9" markerHeight="8" refX="8" refY="4" orient="auto">'
            '<path d="M0 0L9 4L0 8z" class="head"/></marker></defs>\n'
            + "\n".join(self.parts) + "\n</svg>\n")
