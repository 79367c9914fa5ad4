#!/usr/bin/env bash
# Installs msb, static and shared, and builds a consumer of each with CMake and with pkg-config.
#   tests/package/run.sh BUILD_DIR
set -euo pipefail
source_dir=$(realpath "$(dirname "$0")/../..")
work=$(realpath -m "${1:?usage: run.sh BUILD_DIR}")
rm -rf "$work/home"

for shared in OFF ON; do
  build=$work/shared-$shared
  prefix=$build/prefix
  cmake -S "$source_dir" -B "$build/msb" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo \
    -DBUILD_SHARED_LIBS=$shared -DMSB_BUILD_TESTS=OFF -DMSB_BUILD_EXAMPLES=OFF \
    -DCMAKE_INSTALL_PREFIX="$prefix" >/dev/null
  cmake --build "$build/msb" --target install >/dev/null

  cmake -S "$source_dir/tests/package" -B "$build/consumer" -G Ninja -DCMAKE_BUILD_TYPE=Release \
    -DCMAKE_PREFIX_PATH="$prefix" >/dev/null
  cmake --build "$build/consumer" >/dev/null
  "$build/consumer/consumer" "$work/home"

  pc_dir=$(dirname "$(find "$prefix" -name msb.pc)")
  read -ra flags <<<"$(PKG_CONFIG_PATH=$pc_dir pkg-config --cflags --libs msb)"
  c++ -std=c++20 "$source_dir/tests/package/consumer.cc" "${flags[@]}" \
    -Wl,-rpath,"$(dirname "$pc_dir")" -o "$build/consumer-pkg-config"
  "$build/consumer-pkg-config" "$work/home"
done

# Nothing but the API is visible in the shared library.
library=$(find "$work/shared-ON/prefix" -name 'libmsb.so' | head -1)
foreign=$(nm -D --defined-only --demangle "$library" | grep -v ' msb::\| for msb::' || true)
internal=$(nm -D --defined-only --demangle "$library" | grep ' msb::base::\| msb::artifact::' || true)
if [ -n "$foreign$internal" ]; then
  printf 'exported, but not API:\n%s\n%s\n' "$foreign" "$internal" >&2
  exit 1
fi

# Each public header compiles alone, and pulls in nothing but the standard library.
find "$source_dir/include" -name '*.h' | while read -r header; do
  c++ -std=c++20 -Wall -Wextra -Wpedantic -Werror -fsyntax-only -x c++ -I "$source_dir/include" "$header"
  if grep -nE '#include +[<"](nlohmann|sqlite3|archive|zstd|openssl|fmt|blake3|src/)' "$header"; then
    echo "$header includes more than the standard library" >&2
    exit 1
  fi
done
