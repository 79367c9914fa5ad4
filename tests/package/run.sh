#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs msb as a static library, as a shared library, and as both in one prefix. Builds consumers
# of each installation with CMake and with pkg-config, and consumers that build msb as a subproject.
#   tests/package/run.sh BUILD_DIR
set -euo pipefail
cd "$(dirname "$0")/../.."
source_dir=$PWD
work=$(realpath -m "${1:?usage: run.sh BUILD_DIR}")
rm -rf "$work"
mkdir -p "$work"
. tests/package/use.sh
. tests/summary.sh

for preset in release shared; do
  cmake --preset $preset -DMSB_WARNINGS_AS_ERRORS="${MSB_WARNINGS_AS_ERRORS:-OFF}" >/dev/null
  msb_summary cmake --build --preset $preset --target msb msb_snapshot_generated >/dev/null
done

# Each of them alone, in a prefix that is chosen at install time and moved later.
for preset in release shared; do
  cmake --install build/$preset --prefix "$work/first/$preset" >/dev/null
  mkdir -p "$work/moved"
  mv "$work/first/$preset" "$work/moved/"
  use_with_cmake "$preset-consumer" "$work/moved/$preset"
  use_with_pkg_config "$work/moved/$preset"
  use_with_pkg_config "$work/moved/$preset" --static
  "$work/moved/$preset/bin/msb-snapshot" --version
done
needs_shared "$work/shared-consumer/consumer"
if needs_shared "$work/release-consumer/consumer"; then exit 1; fi

# Both in one prefix, in either order.
for order in "release shared" "shared release"; do
  rm -rf "$work/both"
  for preset in $order; do
    cmake --install build/$preset --prefix "$work/both" >/dev/null
  done
  use_with_cmake both-default "$work/both"
  needs_shared "$work/both-default/consumer"
  use_with_cmake both-static "$work/both" -DBUILD_SHARED_LIBS=OFF
  if needs_shared "$work/both-static/consumer"; then exit 1; fi
  use_with_cmake both-component "$work/both" -DMSB_COMPONENT=static
  if needs_shared "$work/both-component/consumer"; then exit 1; fi
  use_with_pkg_config "$work/both"
  needs_shared "$work/consumer-pkg-config"
done

# As a subproject, with the flags of the presets, so that a compiler cache has the library.
for fetch in OFF ON; do
  for shared in OFF ON; do
    build=$work/subproject-$fetch-$shared
    cmake -S tests/package/subproject -B "$build" -G Ninja -DMSB_SOURCE="$source_dir" \
      -DMSB_FETCH=$fetch -DBUILD_SHARED_LIBS=$shared -DCMAKE_BUILD_TYPE=RelWithDebInfo \
      -DCMAKE_CXX_FLAGS_RELWITHDEBINFO="-O2 -g1 -DNDEBUG" \
      -DMSB_WARNINGS_AS_ERRORS="${MSB_WARNINGS_AS_ERRORS:-OFF}" >/dev/null
    msb_summary cmake --build "$build" >/dev/null
    "$build/consumer" "$work/home"
    if [ $shared = ON ]; then needs_shared "$build/consumer"; fi
  done
done

# The shared library exports only the API.
library=$(find "$work/moved/shared" -name 'libmsb.so')
foreign=$(nm -D --defined-only --demangle "$library" | grep -v ' msb::\| for msb::' || true)
internal=$(nm -D --defined-only --demangle "$library" | grep ' msb::base::\| msb::artifact::' || true)
if [ -n "$foreign$internal" ]; then
  printf 'exported, but not API:\n%s\n%s\n' "$foreign" "$internal" >&2
  exit 1
fi

# Each public header compiles alone, includes only the standard library and public headers, and
# reports that an older language standard is the cause of its errors.
find "$source_dir/include" -name '*.h' | while read -r header; do
  c++ -std=c++20 -Wall -Wextra -Wpedantic -Werror -fsyntax-only -x c++ -I "$source_dir/include" "$header"
  if grep -nE '#include +[<"](nlohmann|sqlite3|archive|curl|zstd|openssl|fmt|blake3|src/)' "$header"; then
    echo "$header includes more than the standard library" >&2
    exit 1
  fi
  errors=$(c++ -std=c++17 -fsyntax-only -x c++ -I "$source_dir/include" "$header" 2>&1 || true)
  if [[ "$errors" != *"error: "*"msb needs C++20"* ]]; then
    echo "$header does not report that it needs C++20: $errors" >&2
    exit 1
  fi
done
