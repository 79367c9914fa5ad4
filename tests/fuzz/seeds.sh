#!/usr/bin/env bash
# Fills DIR with the seeds of a fuzz target: from tests/fixtures, or what make_import_seeds makes.
#   tests/fuzz/seeds.sh TARGET DIR     a target that is not known here gets none
set -euo pipefail
shopt -s nullglob
target=${1:?usage: seeds.sh TARGET DIR}
dir=$(realpath -m "${2:?usage: seeds.sh TARGET DIR}")
cd "$(dirname "$0")/../fixtures"
rm -rf "$dir"
mkdir -p "$dir"

# unpack RELEASE NAME...: the JSON files of these names beneath the snapshots of the release's home.
unpack() {
  local archive=$1/home.tar.zst
  shift
  zstd -dc "$archive" |
    tar -xS -C "$dir" --transform 's,^msb/snapshots/,,;s,/,-,g' --wildcards \
      "${@/#/msb/snapshots/*/}"
}

# variant NAME SED_SCRIPT: the first seed, changed. For what the fixtures have nothing of.
variant() {
  local seeds=("$dir"/*-{manifest,snapshot}.json)
  sed -E "$2" "${seeds[0]}" >"$dir/$1.json"
  ! cmp -s "${seeds[0]}" "$dir/$1.json" || { echo "no variant $1 of ${seeds[0]}" >&2; exit 1; }
}

digest=sha256:1111111111111111111111111111111111111111111111111111111111111111
case $target in
  fuzz_import)
    ../../build/fuzz/tests/fuzz/make_import_seeds "$dir"
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
esac
