#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Compares the ABI of a libmsb.so with the reference, tests/package/libmsb.abi: the exported symbols
# and the types that they use. Fails if a program that was linked to the reference might not work
# with the library. The library must have been built with debug information (-g).
#   tests/package/abi.sh LIBRARY           compares
#   tests/package/abi.sh --renew LIBRARY   makes the library the reference
set -euo pipefail
reference=$(dirname "$(realpath "$0")")/libmsb.abi
fail() {
  echo "ABI: $1" >&2
  exit 1
}

renew=
if [ "${1:-}" = --renew ]; then
  renew=1
  shift
fi
library=${1:?usage: abi.sh [--renew] LIBRARY}
headers=$(dirname "$reference")/../../include
current=$(mktemp --suffix=.abi)
trap 'rm -f "$current"' EXIT

[[ $(readelf -S "$library") = *.debug_info* ]] ||
  fail "$library has no debug information; build it with -g"
[ -n "$renew" ] || [ -s "$reference" ] || fail "$reference is missing"
abidw --headers-dir "$headers" --drop-private-types --suppressions "${reference%.abi}.suppr" \
  --exported-interfaces-only --no-corpus-path --no-comp-dir-path --no-show-locs \
  --no-parameter-names --no-elf-needed --no-write-default-sizes --type-id-style hash \
  --out-file "$current" "$library"
# GCC gives destructors a second artificial parameter, which only older releases of libabigail
# record.
awk '/<function-decl / { destructor = /name=.~/; parameters = 0 }
     destructor && /<parameter / && parameters++ { next }
     { print }' "$current" >"$current.new"
mv "$current.new" "$current"
grep -q '<class-decl ' "$current" ||
  fail "$library has debug information without types, as with -g1; build it with -g"
if [ -n "$renew" ]; then
  cp "$current" "$reference"
  exit
fi

attribute() { sed -n "/^<abi-corpus /s/.* $1='\([^']*\)'.*/\1/p" "$2"; }
for name in architecture soname; do
  if [ "$(attribute $name "$reference")" != "$(attribute $name "$current")" ]; then
    echo "ABI: not compared, because the $name is $(attribute $name "$current"), and that of the" \
      "reference $(attribute $name "$reference")"
    exit
  fi
done
status=0
abidiff --no-added-syms --no-show-locs "$reference" "$current" || status=$?
[ $status -eq 0 ] || fail "$library is incompatible with tests/package/libmsb.abi: see above what changed.
Undo the change, or change MAJOR or MINOR of the version (docs/contributing.md,
Change the API or the ABI) and renew the reference: tests/package/abi.sh --renew $library"
