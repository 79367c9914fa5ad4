#!/usr/bin/env bash
# From nothing to a running example on a fresh Debian 12: installs what is missing, builds msb, makes
# a disk image, and runs the main job on the embedded backend, printing each step and what it cost.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/packages.sh
msb_install_build_dependencies

export CMAKE_CXX_COMPILER_LAUNCHER=ccache CMAKE_C_COMPILER_LAUNCHER=ccache
echo "building"
cmake -S . -B build/quickstart -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo -DMSB_BUILD_TESTS=OFF \
  >/dev/null
cmake --build build/quickstart | tail -n 1

work=$(mktemp -d "$PWD/build/quickstart-XXXXXX")
trap 'rm -rf "$work"' EXIT
# A real file system with real files in it, 1 GiB apparent.
truncate -s 1G "$work/base.ext4"
PATH=$PATH:/usr/sbin mkfs.ext4 -q -F -d include "$work/base.ext4"

build/quickstart/examples/quickstart "$work/home" "$work/base.ext4"
