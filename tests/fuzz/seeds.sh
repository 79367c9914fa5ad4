#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Fills DIR with the seeds of a fuzz target: from tests/fixtures, or made by make_import_seeds or
# qemu-img.
#   tests/fuzz/seeds.sh TARGET DIR     an unknown target gets no seeds
set -euo pipefail
shopt -s nullglob
target=${1:?usage: seeds.sh TARGET DIR}
dir=$(realpath -m "${2:?usage: seeds.sh TARGET DIR}")
cd "$(dirname "$0")/../fixtures"
rm -rf "$dir"
mkdir -p "$dir"

# unpack RELEASE NAME...: unpacks the JSON files with these names from the snapshots in a release's
# home.
unpack() {
  local archive=$1/home.tar.zst
  shift
  zstd -dc "$archive" |
    tar -xS -C "$dir" --transform 's,^msb/snapshots/,,;s,/,-,g' --wildcards \
      "${@/#/msb/snapshots/*/}"
}

# variant NAME SED_SCRIPT: changes the first seed, to get what the fixtures do not have.
variant() {
  local seeds=("$dir"/*-{manifest,snapshot}.json)
  sed -E "$2" "${seeds[0]}" >"$dir/$1.json"
  ! cmp -s "${seeds[0]}" "$dir/$1.json" || { echo "no variant $1 of ${seeds[0]}" >&2; exit 1; }
}

# qcow2 NAME SIZE OPTIONS [REQUEST...]: makes a disk and writes to it with these qemu-io requests.
qcow2() {
  local name=$1 size=$2 options=$3 request requests=()
  shift 3
  for request in "$@"; do requests+=(-c "$request"); done
  qemu-img create -q -f qcow2 -o "$options" "$name" "$size"
  [ $# -eq 0 ] || qemu-io -f qcow2 "${requests[@]}" "$name" >/dev/null
}

# shorten FILE: makes the file a seed, in the form of inputs that qcow2_input.h describes.
shorten() {
  local cluster at
  cluster=$((1 << $(od -An -j 23 -N 1 -t u1 "$1")))
  if [ "$cluster" -le 4096 ]; then
    cp "$1" "$dir/$1"
    return
  fi
  truncate -s "%$cluster" "$1"
  for ((at = 0; at < $(stat -c %s "$1"); at += cluster)); do
    dd if="$1" iflag=skip_bytes skip="$at" bs=2048 count=1 status=none
    dd if="$1" iflag=skip_bytes skip=$((at + cluster - 2048)) bs=2048 count=1 status=none
  done >"$dir/$1"
}

# Makes seeds in the current directory: with clusters of most sizes, each format of entries and
# refcounts, and each compression. Not the largest clusters, whose tables take too long.
make_qcow2_seeds() {
  local bytes bits type file
  # Data, zeros and unallocated clusters at both ends of the first L2 table, and in the next one.
  for bytes in 512 1k 2k 4k; do
    qcow2 "v3_$bytes" 5M "cluster_size=$bytes" 'write -P 1 1k 9k' 'write -z 4k 1k' \
      'write -P 2 31k 2k' 'write -P 3 2047k 2k' 'write -z 3M 4k'
  done
  qcow2 v3_64k 700M cluster_size=64k 'write -P 1 0 1k' 'write -P 2 511M 100k' 'write -z 256M 64k' \
    'write -P 3 512M 1k'
  qcow2 v3_128k 3G cluster_size=128k 'write -P 1 0 1k' 'write -P 2 2047M 1k' \
    'write -P 2 2096640k 1k'
  qcow2 v2_512 70k compat=0.10,cluster_size=512 'write -P 1 0 3k' 'write -P 2 31k 2k'
  qcow2 v2_64k 1M compat=0.10 'write -P 1 100k 1k'
  for bits in 1 2 4 8 32 64; do
    qcow2 "refcounts_$bits" 64k "cluster_size=512,refcount_bits=$bits" 'write -P 1 0 1k'
  done
  for bytes in 16k 128k; do
    qcow2 "subclusters_$bytes" 600M "extended_l2=on,cluster_size=$bytes" 'write -P 1 1k 3k' \
      'write -z 64k 8k' 'write -P 2 15M 20k' 'write -P 3 70k 512'
  done
  qcow2 base 300k cluster_size=4k 'write -P 1 0 6k' 'write -P 0 6k 6k' 'write -P 2 290k 8k'
  for type in zlib zstd; do
    for bytes in 512 4k 64k; do
      qemu-img convert -c -f qcow2 -O qcow2 -o "compression_type=$type,cluster_size=$bytes" base \
        "${type}_$bytes"
    done
  done
  qemu-io -f qcow2 -c 'write -P 7 2k 1k' zlib_4k >/dev/null
  truncate -s 60000 raw
  qcow2 on_raw 100k cluster_size=4k,backing_file=raw,backing_fmt=raw 'write -P 1 0 1k' \
    'write -z 8k 4k'
  qcow2 on_qcow2 100k extended_l2=on,cluster_size=16k,backing_file=base,backing_fmt=qcow2 \
    'write -P 1 0 1k' 'write -z 8k 4k'
  qcow2 bitmap 64k cluster_size=4k
  qemu-img bitmap --add bitmap b
  LC_ALL=C sed 's/\x04extended L2/\x07extended L2/' on_qcow2 >unknown_feature
  printf '\200' | dd of=unknown_feature bs=1 seek=79 conv=notrunc status=none
  head -c 60 v2_512 >"$dir/cut"
  rm raw
  for file in *; do shorten "$file"; done
}

digest=sha256:1111111111111111111111111111111111111111111111111111111111111111
case $target in
  fuzz_import)
    ../../build/fuzz/tests/fuzz/make_import_seeds "$dir"
    ;;
  fuzz_qcow2)
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    cd "$scratch"
    make_qcow2_seeds
    ;;
  fuzz_manifest)
    unpack 0.6.6 manifest.json
    variant no_sandbox 's/("source_sandbox":)"[^"]*"/\1null/'
    variant qcow2_child "s/\"raw\"/\"qcow2\"/; s/(\"parent\":)null/\\1\"$digest\"/"
    ;;
  fuzz_descriptor)
    unpack 0.6.18 snapshot.json
    variant checkpoint "s/\"state\":.*,\"labels\"/\"state\":{\"kind\":\"checkpoint\",\
\"checkpoint_id\":\"c\",\"manifest\":\"$digest\"},\"labels\"/; s/\"disk\"/\"resumable\"/"
    variant sha256 "s/(\"integrity\":).*(\}\},\"labels\")/\\1{\"algorithm\":\"sha256\",\
\"digest\":\"$digest\"}\\2/"
    variant extensions 's/"extensions":.*/"extensions":{"b":[0.1,1e20,-0,-7,1e-7,{"z":"\\u00e9",\
"y":null}],"a":true},"requires":["a","b"]}/'
    variant time 's/("created_at":)"[^"]*"/\1"2016-12-31t22:59:60.50-01:00"/'
    ;;
  fuzz_layered)
    unpack 0.7.2 snapshot.json metadata.json group-member.json group.json
    variant chain 's/("layers":\[\{"backing":)null(.*)\]/\1"base"\2,{"backing":null,\
"format":"qcow2","layer_id":"base","payload":{"file_kind":"regular","integrity":null},\
"virtual_size":1}]/'
    variant checkpoint 's/"kind":"file"/"kind":"checkpoint"/; s/("requires":\[)/\1"x"/'
    ;;
  fuzz_registry)
    oci='{"schemaVersion":2,"mediaType":"application/vnd.oci.image'
    type='"artifactType":"application/vnd.msb.snapshot.v1"'
    blob="\"digest\":\"$digest\",\"size\":5}"
    media='{"mediaType":"application/vnd.msb.snapshot'
    printf '0%s.index.v1+json",%s,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json",%s,%s]}' \
      "$oci" "$type" "$type" "$blob" >"$dir/index"
    printf '1%s.manifest.v1+json",%s,"config":%s.chunks.v1+json",%s,"layers":[%s.descriptor.v1+json",%s,%s.chunk.v1+zstd",%s]}' \
      "$oci" "$type" "$media" "$blob" "$media" "$blob" "$media" "$blob" >"$dir/manifest"
    # A file of one leaf that is not zeros, whose root is not the recorded one.
    printf '2{"schema":1,"file":"upper.ext4","size":65536,"chunk_size":65536,"integrity":{"algorithm":"msb-file-merkle-blake3-v1","root":"%s","logical_size":65536,"leaf_size":65536},"chunks":[{"index":0,"hash":"%s",%s]}' \
      "${digest/sha256/blake3}" "${digest/sha256/blake3}" "$blob" >"$dir/table"
    printf '3' | cat - <(head -c 1000 ../../README.md | zstd -q) >"$dir/blob"
    ;;
esac
