#!/usr/bin/env bash
# Installs msb as a static library, as a shared library, and as both in one prefix. Builds consumers
# of each installation with CMake and with pkg-config.
#   tests/package/run.sh BUILD_DIR
set -euo pipefail
cd "$(dirname "$0")/../.."
source_dir=$PWD
work=$(realpath -m "${1:?usage: run.sh BUILD_DIR}")
rm -rf "$work"
mkdir -p "$work"

for preset in release shared; do
  cmake --preset $preset -DMSB_WARNINGS_AS_ERRORS="${MSB_WARNINGS_AS_ERRORS:-OFF}" >/dev/null
  cmake --build --preset $preset --target msb >/dev/null
done

# use_with_cmake NAME PREFIX [ARGUMENT...]: builds and runs the consumer.
use_with_cmake() {
  local build=$work/$1 prefix=$2
  cmake -S "$source_dir/tests/package" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release \
    -DCMAKE_PREFIX_PATH="$prefix" "${@:3}" >/dev/null
  cmake --build "$build" >/dev/null
  "$build/consumer" "$work/home"
}

# use_with_pkg_config PREFIX [ARGUMENT...]: does the same with msb.pc.
use_with_pkg_config() {
  local pc_dir flags
  pc_dir=$(dirname "$(find "$1" -name msb.pc)")
  read -ra flags <<<"$(PKG_CONFIG_PATH=$pc_dir pkg-config --cflags --libs "${@:2}" msb)"
  c++ -std=c++20 tests/package/consumer.cc "${flags[@]}" -Wl,-rpath,"$(dirname "$pc_dir")" \
    -o "$work/consumer-pkg-config"
  "$work/consumer-pkg-config" "$work/home"
}

# needs_shared PROGRAM: succeeds if the program loads libmsb.so.
needs_shared() { readelf -d "$1" | grep -q 'NEEDED.*libmsb\.so'; }

# Each of them alone, in a prefix that is chosen at install time and moved later.
for preset in release shared; do
  cmake --install build/$preset --prefix "$work/first/$preset" >/dev/null
  mkdir -p "$work/moved"
  mv "$work/first/$preset" "$work/moved/"
  use_with_cmake "$preset-consumer" "$work/moved/$preset"
  use_with_pkg_config "$work/moved/$preset"
  use_with_pkg_config "$work/moved/$preset" --static
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

# The shared library exports only the API.
library=$(find "$work/moved/shared" -name 'libmsb.so')
foreign=$(nm -D --defined-only --demangle "$library" | grep -v ' msb::\| for msb::' || true)
internal=$(nm -D --defined-only --demangle "$library" | grep ' msb::base::\| msb::artifact::' || true)
if [ -n "$foreign$internal" ]; then
  printf 'exported, but not API:\n%s\n%s\n' "$foreign" "$internal" >&2
  exit 1
fi

# Each public header compiles alone, and includes only the standard library and public headers.
find "$source_dir/include" -name '*.h' | while read -r header; do
  c++ -std=c++20 -Wall -Wextra -Wpedantic -Werror -fsyntax-only -x c++ -I "$source_dir/include" "$header"
  if grep -nE '#include +[<"](nlohmann|sqlite3|archive|zstd|openssl|fmt|blake3|src/)' "$header"; then
    echo "$header includes more than the standard library" >&2
    exit 1
  fi
done
