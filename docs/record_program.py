#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Records a session with msb-snapshot as docs/program.svg, the picture in the README.

Usage: docs/record_program.py PROGRAM

Runs the commands below on a pseudo-terminal, in a temporary home, and draws what they print.
Needs mkfs.ext4.
"""

import html
import os
import pty
import re
import subprocess
import sys
import tempfile

COLUMNS = 96
COMMANDS = [
    "msb-snapshot sandbox create base --image debian.ext4",
    "msb-snapshot create clean --from base --integrity --label stage=deps",
    "msb-snapshot fork clean worker-1 worker-2",
    "msb-snapshot list",
    "msb-snapshot tree",
    "msb-snapshot verify clean",
    "msb-snapshot export --with-image clean - | msb-snapshot import - --name clean --home /srv/other",
]
CLASSES = {"1": "b", "31": "r", "32": "g", "33": "y"}


def run(command, directory):
    """Returns what the command prints on a terminal."""
    pid, fd = pty.fork()
    if pid == 0:
        os.chdir(directory)
        os.execvp("bash", ["bash", "-c", f"stty cols {COLUMNS}; {command}"])
    output = b""
    while True:
        try:
            part = os.read(fd, 65536)
        except OSError:  # EIO: the terminal was closed.
            break
        if not part:
            break
        output += part
    if os.waitpid(pid, 0)[1] != 0:
        sys.exit(f"{command} failed: {output.decode()}")
    return output.decode()


def visible_length(line):
    return len(re.sub(r"\x1b\[\d+m", "", line))


def screen_lines(output):
    """Returns the lines that remain on the screen after progress bars have been erased."""
    for line in output.replace("\r\n", "\n").rstrip("\n").split("\n"):
        line = re.split(r"\r|\x1b\[K", line)[-1]
        while visible_length(line) > COLUMNS:  # The terminal continues on the next line.
            cut = len(line) - (visible_length(line) - COLUMNS)
            yield line[:cut]
            line = line[cut:]
        yield line


def draw_line(text):
    """Returns the text as SVG, with its colors."""
    drawn = ""
    kind = None
    for part in re.split(r"(\x1b\[\d+m)", text):
        code = re.fullmatch(r"\x1b\[(\d+)m", part)
        if code:
            kind = CLASSES.get(code[1])
        elif part:
            escaped = html.escape(part)
            drawn += f'<tspan class="{kind}">{escaped}</tspan>' if kind else escaped
    return drawn


def draw(lines):
    height = 20 * len(lines) + 32
    rows = "\n".join(
        f'<text x="16" y="{30 + 20 * i}" xml:space="preserve">{line}</text>'
        for i, line in enumerate(lines))
    width = int(8.43 * COLUMNS) + 32
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">
<title>A session with msb-snapshot</title>
<style>
text {{ font: 14px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; fill: #d7dae0 }}
.b {{ font-weight: bold; fill: #fff }} .g {{ fill: #7fd88f }} .y {{ fill: #e5c07b }}
.r {{ fill: #e06c75 }} .p {{ fill: #6cb6ff }}
</style>
<rect width="100%" height="100%" rx="8" fill="#1d2129"/>
{rows}
</svg>
"""


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    program = os.path.abspath(sys.argv[1])
    lines = []
    with tempfile.TemporaryDirectory() as directory:
        os.environ["PATH"] = f"{os.path.dirname(program)}:{os.environ['PATH']}:/usr/sbin"
        os.environ.update(MSB_HOME=f"{directory}/srv/msb", TERM="xterm", LC_ALL="C.UTF-8")
        subprocess.run(
            f"cd {directory} && truncate -s 4G debian.ext4 && "
            "mkfs.ext4 -q -F -d /usr/include debian.ext4", shell=True, check=True)
        for command in COMMANDS:
            lines.append(f'<tspan class="p">$</tspan> {html.escape(command)}')
            output = run(command.replace("/srv", f"{directory}/srv"), directory)
            lines += [draw_line(line) for line in
                      screen_lines(output.replace(directory, ""))]
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "program.svg")
    with open(path, "w", encoding="utf-8") as file:
        file.write(draw(lines))


main()
