# SPDX-License-Identifier: Apache-2.0
#
# Functions that read the #include lines of the library. Sourced in the root of the clone.

# Prints "FILE HEADER" for each #include "HEADER" in the sources.
includes() {
  grep -roE --include='*.cc' --include='*.h' '^#include "[^"]+"' src |
    sed -E 's/^([^:]+):#include "([^"]+)"/\1 \2/'
}

# module_of FILE: sets module to the directory of a source in src, or to "API" for one that is in
# src itself.
module_of() {
  module=${1#src/}
  case $module in
    */*) module=${module%%/*} ;;
    *) module=API ;;
  esac
}

# Prints "FROM TO" for each pair of modules of which the first includes the second.
module_includes() {
  local file header from
  includes | while read -r file header; do
    [[ $header == src/* ]] || continue
    module_of "$file" && from=$module
    module_of "$header"
    [ "$from" = "$module" ] || echo "$from $module"
  done | sort -u
}
