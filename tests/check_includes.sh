#!/usr/bin/env bash
# Fails if a module of the library includes a header of a module that is not below it:
# facade (src/*.cc) -> ops -> archive, handle, vmm -> artifact, index -> disk -> base.
set -euo pipefail
cd "$(dirname "$0")/.."
declare -A level=([base]=0 [disk]=1 [artifact]=2 [index]=2 [archive]=3 [handle]=3 [vmm]=3 [ops]=4 [.]=5)
# The public headers that only some modules may include; the others are for all.
declare -A public=([msb/vmm/backend.h]=3 [msb/vmm/qemu.h]=3 [msb/client.h]=3 [msb/artifact.h]=4
                   [msb/handle.h]=4 [msb/sandbox.h]=4 [msb/snapshot.h]=4 [msb/msb.h]=6)
failed=0
# module_of FILE: sets module to the directory of a source, or to "." for a source of the facade.
module_of() {
  module=${1#src/}
  case $module in
    */*) module=${module%/*} ;;
    *) module=. ;;
  esac
}

while IFS=: read -r file include; do
  case $include in
    src/*) module_of "$include" && target=$module needed=${level[$module]:-9} ;;
    *) target=$include needed=${public[$include]:-0} ;;
  esac
  module_of "$file"
  [ "$target" != "$module" ] || continue
  if [ -z "${level[$module]:-}" ]; then
    echo "$file: add the module src/$module to tests/check_includes.sh" >&2
    failed=1
  elif [[ $include == src/* && $needed -ge ${level[$module]} || $needed -gt ${level[$module]} ]]; then
    echo "$file must not include $include: $target is not below $module" >&2
    failed=1
  fi
done < <(grep -rnoE --include='*.cc' --include='*.h' '^#include "[^"]+"' src |
  sed -E 's/^([^:]+):[0-9]+:#include "([^"]+)"/\1:\2/')
exit $failed
