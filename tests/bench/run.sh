#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes the disk image of docs/benchmarks.md, with an apparent size of 8 GiB and the files of
# /usr/share and /usr/bin, and compares the library on it with cp, tar, zstd, qemu-img, skopeo and,
# if given, a released runtime. Needs docker-registry and skopeo.
#   tests/bench/run.sh DIR [RUNTIME]     DIR: a directory on the disk to measure; needs 20 GiB
set -euo pipefail
source_dir=$(realpath "$(dirname "$0")/../..")
dir=$(realpath -m "${1:?usage: run.sh DIR [RUNTIME]}")
runtime=${2:+$(realpath "$2")}

cmake -S "$source_dir" --preset release >/dev/null
. "$source_dir/tests/summary.sh"
msb_summary cmake --build "$source_dir/build/release" --target \
  bench_snapshot bench_archive bench_chain bench_live bench_program bench_registry >/dev/null

mkdir -p "$dir"
if [ ! -e "$dir/image.ext4" ]; then
  mkdir -p "$dir/tree/usr"
  cp -a /usr/share /usr/bin "$dir/tree/usr/"
  truncate -s 8G "$dir/image.tmp"
  PATH=$PATH:/usr/sbin mkfs.ext4 -q -F -d "$dir/tree" "$dir/image.tmp"
  rm -rf "$dir/tree"
  mv "$dir/image.tmp" "$dir/image.ext4"
fi
for bench in bench_snapshot bench_archive bench_chain bench_live bench_program bench_registry; do
  "$source_dir/build/release/tests/bench/$bench" "$dir/work" "$dir/image.ext4" $runtime
done
