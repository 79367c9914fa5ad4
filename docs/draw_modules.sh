#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Draws which module of the library includes which, from the #include lines of the sources. An arrow
# that follows from two others is left out. The drawing is in docs/architecture.md.
#   docs/draw_modules.sh           prints the drawing
#   docs/draw_modules.sh --check   fails if the one in architecture.md differs
#   docs/draw_modules.sh --write   replaces it
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/includes.sh
page=docs/architecture.md

draw() {
  echo '```mermaid'
  echo 'graph TD'
  module_includes |
    awk '
      { edge[$1, $2] = 1; all[$1]; all[$2] }
      END {
        for (k in all) for (i in all) for (j in all)
          if (((i, k) in reach || (i, k) in edge) && ((k, j) in reach || (k, j) in edge)) reach[i, j] = 1
        for (i in all) for (j in all) {
          needed = (i, j) in edge
          for (k in all) if ((i, k) in edge && k != j && ((k, j) in edge || (k, j) in reach)) needed = 0
          if (needed) print "  " i " --> " j
        }
      }' | sort
  echo '```'
}

# The page with this drawing instead of its own.
updated() {
  awk -v drawing="$(draw)" '
    /^```mermaid$/ { print drawing; skip = 1 }
    !skip { print }
    /^```$/ { skip = 0 }' "$page"
}

case ${1:-} in
  "") draw ;;
  --check) diff <(updated) "$page" >&2 ||
    { echo "$page: the drawing of the modules is outdated; run docs/draw_modules.sh --write" >&2; exit 1; } ;;
  --write) new=$(updated) && printf '%s\n' "$new" >"$page" ;;
  *) echo "usage: docs/draw_modules.sh [--check | --write]" >&2; exit 2 ;;
esac
