#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Fails if a module of the library includes a header that is not below it:
# API (src/*.cc) -> ops -> archive, handle, vmm -> artifact, index -> disk -> base,
# where vmm, which knows disks but not artifacts, includes only disk and base, and registry is
# above archive.
# Also fails if a program in tools includes anything but the public API and tools, or if a source
# lacks a header that newer versions of a dependency need.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/includes.sh
# The modules that each module may include.
declare -A below=([base]="" [disk]="base" [index]="base" [artifact]="disk base" [vmm]="disk base"
                  [archive]="artifact disk base" [handle]="artifact index disk base")
below[registry]="archive artifact disk base"
below[ops]="archive handle registry vmm ${below[handle]}"
below[API]="ops ${below[ops]}"
# The public headers that only some modules may include; the others are for all.
backends="handle vmm ops API"
declare -A users=([msb/vmm/backend.h]=$backends [msb/vmm/qemu.h]=$backends [msb/client.h]="ops API"
                  [msb/artifact.h]="ops API" [msb/handle.h]="ops API" [msb/sandbox.h]="ops API"
                  [msb/snapshot.h]="ops API" [msb/msb.h]="")
failed=0
fail() { echo "$*" >&2; failed=1; }

while read -r file header; do
  module_of "$file" && from=$module
  if [ -z "${below[$from]+set}" ]; then
    fail "$file: add the module src/$from to tests/check_includes.sh"
  elif [[ $header == src/* ]]; then
    module_of "$header"
    [[ " $from ${below[$from]} " == *" $module "* ]] ||
      fail "$file must not include $header: $module is not below $from"
  elif [[ -n ${users[$header]+set} && " ${users[$header]} " != *" $from "* ]]; then
    fail "$file must not include $header: it is not for $from"
  fi
done < <(includes)
if grep -rnE --include='*.cc' --include='*.h' '^#include "' tools |
  grep -vE ':#include "(msb/[a-z_/]+\.h|tools/[^"]+)"' >&2; then
  fail "a program in tools must include only the public API (msb/...) and tools/..."
fi
# fmt 11 defines fmt::join there only.
lacking=$(grep -rlw --include='*.cc' --include='*.h' 'fmt::join' src tools tests |
  xargs grep -L '^#include <fmt/ranges.h>' || true)
[ -z "$lacking" ] || fail "must include fmt/ranges.h for fmt::join: $lacking"
exit $failed
