#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds the documentation site from the headers and the pages, without a single warning. Needs
# doxygen, graphviz and python3.
#   docs/site/build.sh DIR      writes DIR/index.html; removes what was in DIR
set -euo pipefail
[ $# -eq 1 ] || { echo "usage: build.sh DIR" >&2; exit 2; }
out=$(realpath -m "$1")
cd "$(dirname "$0")/../.."
version=$(sed -n 's/^#define MSB_VERSION_STRING "\(.*\)"/\1/p' include/msb/version.h)

rm -rf "$out"
mkdir -p "$out"
# The path of the interpreter: a wrapper in front of it may take longer than the filter.
python=$(python3 -c 'import sys; print(sys.executable)')

$python docs/site/navigation.py header >"$out/header.tmp"
doxygen - <<CONFIG
@INCLUDE               = docs/site/Doxyfile
INPUT_FILTER           = "$python docs/site/filter.py"
OUTPUT_DIRECTORY       = "$out"
PROJECT_NUMBER         = $version
HTML_HEADER            = "$out/header.tmp"
HTML_EXTRA_FILES       = docs/site/style.css $(echo docs/*.svg docs/diagrams/*.svg)
CONFIG
rm "$out/header.tmp"
$python docs/site/navigation.py mark "$out"
