#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds the fuzz targets and runs each, as many concurrently as there are cores.
#   tests/fuzz/run.sh SECONDS [TARGET...]     default: all targets
# Leaves in build/fuzz: TARGET.log, corpus/TARGET, from which the next run continues, and for each
# finding a file TARGET-crash-…, TARGET-timeout-… or the like, with which to reproduce it.
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds=${1:?usage: run.sh SECONDS [TARGET...]}
shift
if [ $# -eq 0 ]; then
  mapfile -t all < <(sed -n 's/^msb_add_fuzzer(\(.*\))$/\1/p' tests/fuzz/CMakeLists.txt)
  set -- "${all[@]}"
fi

build=build/fuzz
mkdir -p "$build"
{ cmake --preset fuzz && cmake --build --preset fuzz --target "$@"; } >"$build/build.log" 2>&1 ||
  { cat "$build/build.log"; exit 1; }

fuzz() {
  local target=$1 corpus=$build/corpus/$1 seeds=$build/seeds/$1 log=$build/$1.log largest
  tests/fuzz/seeds.sh "$target" "$seeds"
  mkdir -p "$corpus"
  # By default, libFuzzer makes no input longer than the longest seed.
  largest=$(find "$seeds" -type f -printf '%s\n' | sort -n | tail -n 1)
  if "$build/tests/fuzz/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 \
    -max_len=$((4096 + ${largest:-0})) -print_final_stats=1 -dict=tests/fuzz/json.dict \
    -artifact_prefix="$build/$target-" "$corpus" "$seeds" >"$log" 2>&1; then
    echo "$target: $(awk '/number_of_executed_units/ { print $2 }' "$log") inputs, no finding"
  else
    tail -n 40 "$log"
    echo "$target: a finding, see $log"
    return 1
  fi
}
export -f fuzz
export build seconds
printf '%s\n' "$@" | xargs -P "$(nproc)" -I{} bash -c 'set -euo pipefail; fuzz {}'
