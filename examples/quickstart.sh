#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs the main workflow on a fresh Debian 12 or 13: installs missing packages, builds msb, makes a
# disk image, and runs quickstart on the local backend, which prints each step and how long it took.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/packages.sh
msb_install_build_dependencies
. tests/ccache.sh
. tests/summary.sh

echo "building"
# The build of tests/run.sh, which adds the tests to it.
cmake --preset release -DMSB_BUILD_TESTS=OFF -DMSB_BUILD_BENCHMARKS=OFF \
  -DMSB_WARNINGS_AS_ERRORS="${MSB_WARNINGS_AS_ERRORS:-OFF}" >/dev/null
msb_summary cmake --build --preset release --target quickstart

work=$(mktemp -d "$PWD/build/quickstart-XXXXXX")
trap 'rm -rf "$work"' EXIT
# A real file system with real files in it, 1 GiB apparent.
truncate -s 1G "$work/base.ext4"
PATH=$PATH:/usr/sbin mkfs.ext4 -q -F -d include "$work/base.ext4"

build/release/examples/quickstart "$work/home" "$work/base.ext4"
