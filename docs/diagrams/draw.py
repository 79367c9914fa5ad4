#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Draws the diagrams of the documentation into this directory.

    docs/diagrams/draw.py            writes the drawings
    docs/diagrams/draw.py --check    fails if a drawing in this directory differs
    docs/diagrams/draw.py --read     also replaces benchmarks.json, from which it draws the plots, by
                                     the medians in the output of tests/bench/run.sh on its input
"""

import json
import pathlib
import re
import sys
import tempfile

sys.dont_write_bytecode = True

from svg import Drawing

HERE = pathlib.Path(__file__).resolve().parent


def boot():
    d = Drawing(480, 330, "Booting sandboxes from a snapshot")
    d.box(150, 10, 180, 56, "sandbox", ("baseline", "bold"), ("sandbox, stopped", "small"))
    d.arrow((240, 66), (240, 118))
    d.text(252, 96, "Snapshot::Create", "small mono")
    d.box(120, 120, 240, 56, "snapshot", ("after-pip-install", "bold"), ("snapshot, read only", "small"))
    for x, number in ((10, 1), (170, 2), (330, 3)):
        d.arrow((240, 176), (240, 200), (x + 70, 200), (x + 70, 238))
        d.box(x, 240, 140, 76, "sandbox", (f"worker-{number}", "bold"), ("sandbox with an", "small"),
              ("overlay of its own", "small"))
    d.text(252, 192, "WithSnapshot", "small mono")
    return d


def artifact():
    d = Drawing(480, 430, "What an artifact holds")
    d.group(10, 10, 460, 262, "artifact: snapshots/after-pip-install/")
    d.box(25, 42, 430, 138, "snapshot")
    d.text(40, 64, "snapshot.json, the manifest", "bold")
    for i, (field, meaning) in enumerate((
            ("image", "reference and pinned digest"), ("parent", "digest of the parent, or none"),
            ("upper", "file, size, format, integrity"), ("labels", "of the user"),
            ("created_at, source_sandbox", ""))):
        d.text(40, 88 + 20 * i, field, "mono")
        d.text(150, 88 + 20 * i, meaning, "small")
    d.box(25, 194, 430, 64, "snapshot", ("upper.qcow2 or upper.ext4, the disk", "bold"),
          ("qcow2: only the changes to its backing file; raw: all", "small"))
    d.arrow((130, 258), (130, 318))
    d.arrow((350, 258), (350, 318))
    d.text(240, 294, "is backed by one of", "small", "middle")
    d.box(10, 320, 220, 60, "snapshot", "the parent's disk", ("another artifact", "small"))
    d.box(250, 320, 220, 60, "image", "the image", ("cache/disks/sha256_HEX.raw", "small mono"))
    d.text(240, 412, "The digest of a snapshot is the SHA-256 of its manifest.", "small", "middle")
    return d


def generations():
    d = Drawing(480, 372, "The generations of artifacts")
    rows = (("manifest", "0.5.5 to 0.6.6", "manifest.json", "upper.ext4", "reads and writes"),
            ("descriptor", "0.6.7 to 0.6.18", "snapshot.json", "upper.ext4 or upper.qcow2",
             "reads and writes"),
            ("layered", "0.7", "GROUP/group.json", "GROUP/ID/snapshot.json, layers/", "reads"))
    for i, (name, releases, first, second, use) in enumerate(rows):
        y = 10 + 122 * i
        d.box(10, y, 140, 92, "plain", (name, "bold"), (releases, "small"))
        d.box(165, y, 305, 92, "snapshot", (first, "mono"), (second, "mono"), (f"msb {use} it", "small"))
        if i < 2:
            d.arrow((80, y + 92), (80, y + 120))
    d.text(95, 118, "later releases read the earlier generations", "small")
    d.text(95, 240, "0.7 migrates what it opens", "small")
    return d


def seal():
    d = Drawing(480, 640, "A snapshot takes over the disk of a qcow2 sandbox")
    d.text(10, 24, "Before: the sandbox is stopped", "bold")
    d.group(10, 36, 220, 150, "sandboxes/baseline/")
    d.box(25, 66, 190, 46, "sandbox", ("upper.qcow2", "mono"), ("data of the guest", "small"))
    d.arrow((120, 112), (120, 134))
    d.box(25, 136, 190, 38, "image", ("sha256_IMAGE.raw", "mono"))

    d.text(10, 222, "Sealed: a new overlay, and a seal is recorded", "bold")
    d.group(10, 234, 220, 208, "sandboxes/baseline/")
    d.box(25, 264, 190, 46, "sandbox", ("upper-HEX.qcow2", "mono"), ("new and empty", "small"))
    d.arrow((120, 310), (120, 330))
    d.box(25, 332, 190, 46, "snapshot", ("sha256_SNAP.qcow2", "mono"), ("read only from now on", "small"))
    d.arrow((120, 378), (120, 394))
    d.box(25, 396, 190, 36, "image", ("sha256_IMAGE.raw", "mono"))
    d.group(250, 234, 220, 208, ".msb-stage-…/")
    d.box(265, 264, 190, 46, "snapshot", ("snapshot.json", "mono"), ("gives the digest SNAP", "small"))
    d.box(265, 332, 190, 46, "snapshot", ("upper.qcow2", "mono"), ("hard link", "small"))
    d.arrow((215, 355), (263, 355), style="dashed")

    d.text(10, 476, "Published:", "bold")
    d.text(348, 476, "one rename", "small", "end")
    d.box(10, 492, 220, 62, "sandbox", ("baseline", "bold"), ("continues on its overlay", "small"))
    d.box(250, 492, 220, 62, "snapshot", ("snapshots/first/", "mono"), ("can be booted", "small"))
    d.arrow((360, 442), (360, 490))
    d.text(10, 586, "A crash before the rename: the next call rolls back, and", "small")
    d.text(10, 606, "upper.qcow2 is the sandbox's disk again.", "small")
    d.text(10, 626, "A crash after it: the next call rolls forward.", "small")
    return d


def chain():
    d = Drawing(480, 372, "A chain of snapshots, and a sandbox that is backed by it")
    d.text(120, 24, "sandboxes/worker/", "mono", "middle")
    d.text(360, 24, "in the home", "mono", "middle")
    rows = (("sandbox", "upper.qcow2", "own changes", None, None),
            ("snapshot", "sha256_SECOND.qcow2", "changes since first", "snapshots/second/", "parent: first"),
            ("snapshot", "sha256_FIRST.qcow2", "changes to the image", "snapshots/first/", "no parent"),
            ("image", "sha256_IMAGE.raw", "the complete image", "cache/disks/", "the image"))
    for i, (style, name, what, owner, note) in enumerate(rows):
        y = 40 + 84 * i
        d.box(10, y, 220, 52, style, (name, "mono"), (what, "small"))
        if owner:
            d.box(260, y, 210, 52, style, (owner, "mono"), (note, "small"))
            d.arrow((258, y + 26), (232, y + 26), style="dashed")
        if i < 3:
            d.arrow((120, y + 52), (120, y + 82))
    d.text(132, 110, "is backed by", "small")
    d.text(360, 84, "dashed: hard links", "small", "middle")
    return d


def home():
    d = Drawing(480, 424, "What a home holds")
    d.group(10, 10, 460, 404, "home, by default ~/.microsandbox")
    rows = (("snapshot", "snapshots/NAME/", ("the artifacts, which are", "authoritative")),
            ("sandbox", "sandboxes/NAME/", ("the disk of a sandbox", "and its record")),
            ("image", "cache/disks/", ("images of the backends", "local and qemu")),
            ("plain", "db/snapshots.db", ("the index, a cache of the", "artifacts; may be deleted")),
            ("plain", "db/msb.db", ("the runtime's database, used", "as the index if it exists")))
    for i, (style, name, notes) in enumerate(rows):
        y = 40 + 74 * i
        d.box(25, y, 190, 58, style, (name, "mono"))
        for j, note in enumerate(notes):
            d.text(230, y + 25 + 20 * j, note, "small")
    return d


# The bars of each plot: (label, [(name, heading in benchmarks.json, case)…]).
SNAPSHOT = (("Create", [("msb", "Create", "Create"),
                        ("with integrity", "Create", "Create with integrity"),
                        ("cp and sync", "Create", "cp --sparse=auto + sync of the file")]),
            ("Verify", [("msb", "Verify", "Verify"),
                        ("release 0.6.18", "Verify", "runtime: snapshot verify")]))
ARCHIVE = (("Export", [("msb", "Export", "Export"), ("tar and zstd", "Export", "tar -S | zstd -3 -T2"),
                       ("release 0.6.18", "Export", "runtime: snapshot save")]),
           ("Import", [("msb", "Import", "Import"), ("tar and zstd", "Import", "zstd -dc | tar -xS"),
                       ("release 0.6.18", "Import", "runtime: snapshot load")]),
           ("Export, plain tar", [("msb", "plain Export", "Export"), ("tar", "plain Export", "tar -S"),
                                  ("release 0.6.18", "plain Export", "runtime: snapshot save")]),
           ("Import, plain tar", [("msb", "plain Import", "Import"), ("tar", "plain Import", "tar -xS"),
                                  ("release 0.6.18", "plain Import", "runtime: snapshot load")]))
CHAIN = tuple((label, [(f"msb, {gib} GiB", f"a qcow2 disk of {gib} GiB", case) for gib in (1, 8, 64)]
               + [("0.6.18, 8 GiB", "release 0.6.18", peer)])
              for label, case, peer in (("Create", "Create", "runtime: snapshot create"),
                                        ("Boot preparation", "boot preparation",
                                         "runtime: run --from-snapshot")))


def plot(title, groups):
    """Draws the medians of benchmarks.json as bars on one scale."""
    data = json.loads((HERE / "benchmarks.json").read_text())
    values = [[(name, data[heading][case]) for name, heading, case in bars] for _, bars in groups]
    longest = max(value for group in values for _, value in group)
    d = Drawing(480, 34 + sum(34 + 22 * len(group) for group in values), title)
    d.text(10, 20, f"{title}, milliseconds", "bold")
    y = 34
    for (label, _), group in zip(groups, values):
        d.text(10, y + 16, label)
        y += 24
        for name, value in group:
            width = max(2, 230 * value / longest)
            d.bar(150, y, width, 17, "ours" if name.startswith(("msb", "with")) else "theirs")
            d.text(142, y + 13, name, "small", "end")
            d.text(round(158 + width), y + 13, f"{value:,.0f}" if value >= 10 else f"{value:.1f}", "small")
            y += 22
        y += 10
    return d


def read_run(log):
    """Returns the medians in the output of tests/bench/run.sh, in milliseconds."""
    data, heading = {}, ""
    for line in log:
        case = re.match(r"  (\S.*?)(?: \(under \d+\))? +([\d.]+) ms   \(", line)
        if case:
            data.setdefault(heading, {})[case.group(1)] = float(case.group(2))
        elif not line.startswith(" "):
            heading = re.split("[,:]", line.strip())[0]
    return data


def main():
    if sys.argv[1:] == ["--read"]:
        cases = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in read_run(sys.stdin).items()]
        (HERE / "benchmarks.json").write_text("{\n" + ",\n".join(cases) + "\n}\n")
    drawings = {f.__name__: f() for f in (boot, artifact, generations, seal, chain, home)} | {
        "plot-snapshot": plot("Snapshots of a raw disk", SNAPSHOT),
        "plot-archive": plot("Archives", ARCHIVE),
        "plot-chain": plot("Snapshots of a qcow2 disk", CHAIN),
    }
    if sys.argv[1:] == ["--check"]:
        with tempfile.TemporaryDirectory() as scratch:
            for name, drawing in drawings.items():
                fresh = pathlib.Path(scratch) / "drawing.svg"
                drawing.write(fresh)
                kept = HERE / f"{name}.svg"
                if not kept.exists() or kept.read_text() != fresh.read_text():
                    sys.exit(f"{kept.name} is out of date; run docs/diagrams/draw.py")
        return
    for name, drawing in drawings.items():
        drawing.write(HERE / f"{name}.svg")


if __name__ == "__main__":
    main()
