#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes the source archive of a release from a git clone, without uncommitted changes.
#   cmake/source_archive.sh DIR [COMMIT]   writes DIR/msb-VERSION.tar.gz; default: HEAD
# The bytes depend only on the commit. COMMIT may also be a tree, whose files get the present time.
set -euo pipefail
dir=$(realpath -m "${1:?usage: source_archive.sh DIR [COMMIT]}")
commit=${2:-HEAD}
cd "$(dirname "$0")/.."
version=$(git show "$commit:include/msb/version.h" |
  sed -n 's/^#define MSB_VERSION_STRING "\(.*\)"$/\1/p')
mkdir -p "$dir"
git archive --format=tar --prefix="msb-$version/" "$commit" | gzip -9n >"$dir/msb-$version.tar.gz"
echo "$dir/msb-$version.tar.gz"
