# SPDX-License-Identifier: Apache-2.0
#
# Functions that use an installed msb as its users do. To be sourced in the root of the project.
# work: the directory for what they build. use_source: the program, by default consumer.cc.
use_source=${use_source:-tests/package/consumer.cc}

# use_with_cmake NAME PREFIX [ARGUMENT...]: builds and runs the program as $work/NAME/consumer.
use_with_cmake() {
  local build=$work/$1 prefix=$2
  cmake -S tests/package -B "$build" -DCMAKE_BUILD_TYPE=Release -DCMAKE_PREFIX_PATH="$prefix" \
    -DMSB_CONSUMER="$(realpath "$use_source")" "${@:3}" >/dev/null
  cmake --build "$build" >/dev/null
  (cd "$work" && "$build/consumer" "$work/home")
}

# use_with_pkg_config PREFIX [ARGUMENT...]: does the same with msb.pc, as $work/consumer-pkg-config.
use_with_pkg_config() {
  local pc_dir flags
  pc_dir=$(dirname "$(find "$1" -name msb.pc)")
  read -ra flags <<<"$(PKG_CONFIG_PATH=$pc_dir pkg-config --cflags --libs "${@:2}" msb)"
  c++ -std=c++20 "$use_source" "${flags[@]}" -Wl,-rpath,"$(dirname "$pc_dir")" \
    -o "$work/consumer-pkg-config"
  (cd "$work" && "$work/consumer-pkg-config" "$work/home")
}

# needs_shared PROGRAM: succeeds if the program loads libmsb.so.
needs_shared() { readelf -d "$1" | grep -q 'NEEDED.*libmsb\.so'; }
