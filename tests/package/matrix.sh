#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds, installs and uses msb in all ways in which users do, from the source archive of a release.
#   tests/package/matrix.sh [--slice] BUILD_DIR [CASE...]
#   tests/package/matrix.sh --list
# --slice runs only the cases that CI runs, and CASE only those whose names match this pattern. The
# output of each case is in BUILD_DIR/CASE.log. A case whose compiler is missing is skipped.
set -euo pipefail
shopt -s inherit_errexit # So that a failure in $(...) ends the script.
cd "$(dirname "$0")/../.."
source_dir=$PWD
package=$source_dir/tests/package
# CI builds in other ways too: with GCC as a release, and hardened for the Debian packages.
slice=(clang-debug-fetchcontent missing-dependencies wrong-blake3-directory old-curl unknown-suite
  unknown-sanitizer parent-settings unknown-processor install-rpath components postfix)
hardening="-D_FORTIFY_SOURCE=3 -fstack-protector-strong -fstack-clash-protection -fcf-protection"
hardening+=" -D_GLIBCXX_ASSERTIONS"

# use PREFIX [ARGUMENT...]: builds and runs a consumer of an installed msb.
use() {
  cmake -S "$package" -B "$case_dir/consumer" -DCMAKE_PREFIX_PATH="$1" "${@:2}"
  cmake --build "$case_dir/consumer"
  "$case_dir/consumer/consumer" "$case_dir/home"
}

# install COMPILER [ARGUMENT...]: runs the plain CMake lines of the README.
install() {
  CXX=$1 cmake -S "$sources" -B "$case_dir/build" --install-prefix "$case_dir/prefix" "${@:2}"
  cmake --build "$case_dir/build" --parallel "$(nproc)"
  cmake --install "$case_dir/build"
  [ ! -e "$case_dir/build/tests" ] || { echo "the tests were built" >&2; return 1; }
  [[ "$*" = *SKIP_RPATH* ]] || "$case_dir/prefix/bin/msb-snapshot" --version
  CXX=$1 use "$case_dir/prefix"
}

# install_multi COMPILER: uses one build directory for several build types.
install_multi() {
  CXX=$1 cmake -S "$sources" -B "$case_dir/build" -G "Ninja Multi-Config"
  local config
  for config in Debug Release; do
    cmake --build "$case_dir/build" --config $config
    cmake --install "$case_dir/build" --config $config --prefix "$case_dir/prefix"
  done
  CXX=$1 use "$case_dir/prefix" -DCMAKE_BUILD_TYPE=Release
}

# with_flags CXXFLAGS LDFLAGS COMMAND...: runs COMMAND with these flags in its environment.
with_flags() { CXXFLAGS=$1 LDFLAGS=$2 "${@:3}"; }

# add COMPILER [ARGUMENT...]: builds msb as a part of a project that installs nothing of msb.
add() {
  CXX=$1 cmake -S "$package/subproject" -B "$case_dir/build" -DMSB_SOURCE="$sources" "${@:2}"
  cmake --build "$case_dir/build" --parallel "$(nproc)"
  "$case_dir/build/consumer" "$case_dir/home"
  cmake --install "$case_dir/build" --prefix "$case_dir/prefix"
  [ "$(find "$case_dir/prefix" -type f)" = "$case_dir/prefix/bin/consumer" ]
}

# refuse PATTERNS [ARGUMENT...]: expects the configuration to fail with output that matches each of
# the patterns, one per line.
refuse() {
  local output
  if output=$(cmake -S "$sources" -B "$case_dir/build" "${@:2}" 2>&1); then
    echo "configured" >&2
    return 1
  fi
  echo "$output"
  local pattern
  while read -r pattern; do grep -qe "$pattern" <<<"$output"; done <<<"$1"
}

# install_zstd_static COMPILER [ARGUMENT...]: uses a static libzstd, which may lack threads.
install_zstd_static() {
  local library
  library=$(find /usr/lib /usr/local/lib -name libzstd.a | head -n 1)
  CXX=$1 cmake -S "$sources" -B "$case_dir/build" --install-prefix "$case_dir/prefix" \
    -DZSTD_LIBRARY="$library" "${@:2}"
  cmake --build "$case_dir/build" --parallel "$(nproc)"
  cmake --install "$case_dir/build"
  CXX=$1 use "$case_dir/prefix" -DZSTD_LIBRARY="$library"
}

# configure NAME [ARGUMENT...]: configures $case_dir/NAME without building it.
configure() {
  cmake -S "$sources" -B "$case_dir/$1" -DCMAKE_EXPORT_COMPILE_COMMANDS=ON "${@:2}"
}

# expect FILE [-v] PATTERN...: expects FILE to contain each of the patterns or, after -v, none.
expect() {
  local file=$1 wanted=0 status
  shift
  [ "$1" != -v ] || { wanted=1; shift; }
  local pattern
  for pattern in "$@"; do
    status=0
    grep -qe "$pattern" "$file" || status=$?
    [ $status -eq $wanted ] || { echo "$file: grep '$pattern' returned $status" >&2; return 1; }
  done
}

# old_curl: expects a message that names the version of a libcurl that is too old.
old_curl() {
  mkdir -p "$case_dir/include/curl"
  touch "$case_dir/include/curl/curl.h"
  echo '#define LIBCURL_VERSION "7.86.1"' >"$case_dir/include/curl/curlver.h"
  refuse "CURL 7.87 or later (Debian package libcurl4-openssl-dev); found 7.86.1" \
    -DCURL_INCLUDE_DIR="$case_dir/include" -DCURL_NO_CURL_CMAKE=ON
}

# parent_settings: configures msb in a project with settings, modules and a license of its own.
parent_settings() {
  local build=$case_dir/build
  cmake -S "$package/parent" -B "$build" -DMSB_SOURCE="$sources"
  expect "$build/compile_commands.json" 'std=gnu++20' 'std=gnu11 .*blake3.c'
  expect "$build/compile_commands.json" -v -Werror -Wall
  cmake --install "$build" --prefix "$case_dir/prefix" --component license
  cmp "$package/parent/CMakeLists.txt" "$case_dir/prefix/share/doc/msb_parent/LICENSE"
  cmp "$sources/LICENSE" "$case_dir/prefix/share/doc/msb/LICENSE"
}

# unknown_processor: links the bundled BLAKE3 of a toolchain file that names no processor.
unknown_processor() {
  echo 'set(CMAKE_SYSTEM_NAME Linux)' >"$case_dir/toolchain.cmake"
  configure build -G Ninja -DCMAKE_TOOLCHAIN_FILE="$case_dir/toolchain.cmake" \
    -DBLAKE3_SOURCE_DIR="$(blake3_sources)"
  cmake --build "$case_dir/build" --target msb_blake3
  local objects
  mapfile -t objects < <(find "$case_dir/build" -name '*.c.o')
  cat >"$case_dir/main.c" <<'END'
#include <blake3.h>
int main(void) {
  blake3_hasher hasher;
  unsigned char out[BLAKE3_OUT_LEN];
  blake3_hasher_init(&hasher);
  blake3_hasher_update(&hasher, out, 0);
  blake3_hasher_finalize(&hasher, out, sizeof out);
  return out[0] == 0xaf ? 0 : 1;
}
END
  cc -I "$(blake3_sources)" "$case_dir/main.c" "${objects[@]}" -o "$case_dir/main"
  "$case_dir/main"
}

# install_rpath: expects the installed program to find libmsb.so, except in a package.
install_rpath() {
  local program=tools/msb-snapshot/cmake_install.cmake
  configure local -DBUILD_SHARED_LIBS=ON -DCMAKE_INSTALL_LIBDIR=lib64
  expect "$case_dir/local/$program" "ORIGIN/../lib64\""
  configure usr -DBUILD_SHARED_LIBS=ON --install-prefix /usr
  expect "$case_dir/usr/$program" -v ORIGIN
}

# install_empty NAME KIND [ARGUMENT...]: installs the development files and an empty library into
# $case_dir/NAME, without a build.
install_empty() {
  local build=build-$1-$2
  configure "$build" -DMSB_BUILD_TOOLS=OFF "${@:3}"
  local version
  version=$(sed -n 's/^CMAKE_PROJECT_VERSION:.*=//p' "$case_dir/$build/CMakeCache.txt")
  local library=$case_dir/$build/libmsb${postfix:-}
  if [ "$2" = shared ]; then
    echo 'int msb;' | cc -shared -x c - -o "$library.so.$version"
    ln -s "libmsb.so.$version" "$library.so.${version%.*}"
    ln -s "libmsb.so.${version%.*}" "$library.so"
  else
    touch "$library.a"
  fi
  local component
  for component in runtime development; do
    cmake --install "$case_dir/$build" --prefix "$case_dir/$1" --component $component
  done
}

# components: finds the installed libraries with all combinations of components.
components() {
  install_empty both static
  cp -r "$case_dir/both" "$case_dir/static"
  install_empty both shared -DBUILD_SHARED_LIBS=ON
  cmake -S "$package/components" -B "$case_dir/build" -DCMAKE_PREFIX_PATH="$case_dir/both" \
    -DSTATIC_PREFIX="$case_dir/static"
}

# postfix: expects msb.pc to name the library of a build type that has a postfix.
postfix() {
  postfix=-debug install_empty prefix static -DCMAKE_BUILD_TYPE=Debug -DCMAKE_DEBUG_POSTFIX=-debug
  PKG_CONFIG_PATH=$(dirname "$(find "$case_dir/prefix" -name msb.pc)") \
    pkg-config --libs msb >"$case_dir/libs"
  expect "$case_dir/libs" '-lmsb-debug ' '-larchive'
}

blake3_sources() {
  local dirs=(/usr/share/cargo/registry/blake3-*/c)
  echo "${dirs[-1]}"
}

# Each case: its name and its command.
names=()
declare -A commands
add_case() { names+=("$1"); commands[$1]=${*:2}; }

for compiler in gcc:g++ clang:clang++; do
  name=${compiler%:*} cxx=${compiler#*:}
  for type in Debug Release RelWithDebInfo; do
    add_case "$name-${type,,}-static" install $cxx -G Ninja -DCMAKE_BUILD_TYPE=$type
    add_case "$name-${type,,}-shared" install $cxx -G Ninja -DCMAKE_BUILD_TYPE=$type \
      -DBUILD_SHARED_LIBS=ON
  done
  add_case "$name-plain-make" install $cxx -G "'Unix Makefiles'"
  add_case "$name-minsizerel" install $cxx -DCMAKE_BUILD_TYPE=MinSizeRel
  add_case "$name-multi-config" install_multi $cxx
  add_case "$name-lto" install $cxx -G Ninja -DCMAKE_BUILD_TYPE=Release \
    -DCMAKE_INTERPROCEDURAL_OPTIMIZATION=ON
  add_case "$name-hardened" with_flags "'$hardening'" "'-Wl,-z,relro,-z,now'" \
    install $cxx -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo
  add_case "$name-unity" install $cxx -G Ninja -DCMAKE_BUILD_TYPE=Debug -DCMAKE_UNITY_BUILD=ON
  add_case "$name-unity-of-all" install $cxx -G Ninja -DCMAKE_BUILD_TYPE=Debug \
    -DCMAKE_UNITY_BUILD=ON -DCMAKE_UNITY_BUILD_BATCH_SIZE=0
  add_case "$name-not-unity" install $cxx -G Ninja -DCMAKE_BUILD_TYPE=Release \
    -DMSB_UNITY_BUILD=OFF
  add_case "$name-subproject" add $cxx -G Ninja -DCMAKE_BUILD_TYPE=Release
  add_case "$name-subproject-shared" add $cxx -G Ninja -DCMAKE_BUILD_TYPE=Release \
    -DBUILD_SHARED_LIBS=ON
  add_case "$name-debug-fetchcontent" add $cxx -G Ninja -DCMAKE_BUILD_TYPE=Debug -DMSB_FETCH=ON \
    -DCMAKE_UNITY_BUILD=ON
done
add_case gcc-release-static-make install g++ -G "'Unix Makefiles'" -DCMAKE_BUILD_TYPE=Release
add_case gcc-fhardened with_flags "-fhardened" "" \
  install g++ -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo
add_case gcc-hardened-lto-shared with_flags "'$hardening'" "'-Wl,-z,relro,-z,now'" \
  install g++ -G Ninja -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=ON \
  -DCMAKE_INTERPROCEDURAL_OPTIMIZATION=ON
add_case blake3-directory install g++ -G Ninja -DCMAKE_BUILD_TYPE=Release \
  -DBLAKE3_SOURCE_DIR="$(blake3_sources)"
add_case without-registry install g++ -G Ninja -DCMAKE_BUILD_TYPE=Release -DMSB_WITH_REGISTRY=OFF \
  -DCMAKE_DISABLE_FIND_PACKAGE_CURL=ON
add_case zstd-static install_zstd_static g++ -G Ninja -DCMAKE_BUILD_TYPE=Release
add_case missing-dependencies refuse "'libsqlite3-dev
libzstd-dev
apt-get install libsqlite3-dev libzstd-dev'" -DCMAKE_DISABLE_FIND_PACKAGE_SQLite3=ON \
  -DCMAKE_DISABLE_FIND_PACKAGE_zstd=ON
add_case wrong-blake3-directory refuse "'BLAKE3_SOURCE_DIR is ./nowhere'" \
  -DBLAKE3_SOURCE_DIR=/nowhere

add_case gcc-shared-skip-rpath install g++ -G Ninja -DCMAKE_BUILD_TYPE=Release \
  -DBUILD_SHARED_LIBS=ON -DCMAKE_SKIP_RPATH=ON
add_case old-curl old_curl
add_case unknown-suite refuse "'MSB_TEST_SUITES contains .nope.
unit.*vm'" -DMSB_TEST_SUITES="'unit;nope'"
add_case unknown-sanitizer refuse "'MSB_SANITIZE is .bogus.'" -DMSB_SANITIZE=bogus
add_case parent-settings parent_settings
add_case unknown-processor unknown_processor
add_case install-rpath install_rpath
add_case components components
add_case postfix postfix

if [ "${1:-}" = --list ]; then
  printf '%s\n' "${names[@]}"
  exit
fi
patterns=()
if [ "${1:-}" = --slice ]; then
  patterns=("${slice[@]}")
  shift
fi
work=$(realpath -m "${1:?usage: matrix.sh [--slice] BUILD_DIR [CASE...]}")
[ $# -eq 1 ] || patterns=("${@:2}")
[ ${#patterns[@]} -gt 0 ] || patterns=("*")

# work_tree: prints the tree that a commit of all changes would have. Its objects are in $objects.
work_tree() {
  cp "$(git rev-parse --git-path index)" "$objects/index"
  GIT_INDEX_FILE=$objects/index git add --all
  GIT_INDEX_FILE=$objects/index git write-tree
}

# All cases build the source archive, with the changes that are not committed yet. Sources without a
# git clone were unpacked from such an archive.
sources=$work/source
objects=$work/objects
rm -rf "$sources" "$objects"
mkdir -p "$sources" "$objects"
if [ -e .git ]; then
  archive=$(
    GIT_ALTERNATE_OBJECT_DIRECTORIES=$(realpath "$(git rev-parse --git-path objects)")
    export GIT_ALTERNATE_OBJECT_DIRECTORIES GIT_OBJECT_DIRECTORY=$objects
    tree=$(work_tree)
    cmake/source_archive.sh "$work" "$tree"
  )
  tar -xzf "$archive" --strip-components=1 -C "$sources"
else
  tar -c --exclude=./build . | tar -x -C "$sources"
fi
if command -v ccache >/dev/null; then
  . tests/ccache.sh
fi

is_selected() {
  local pattern
  for pattern in "${patterns[@]}"; do
    # shellcheck disable=SC2053
    [[ $1 != $pattern ]] || return 0
  done
  return 1
}

# missing COMMAND: prints which tool that the case needs is not installed, if any.
missing() {
  local word
  for word in $1; do
    case $word in
      g++ | clang++) command -v "$word" >/dev/null || { echo "$word is not installed"; return; } ;;
      -fhardened) g++ -fhardened -O2 -x c++ -c /dev/null -o /dev/null 2>/dev/null ||
        { echo "g++ has no $word"; return; } ;;
    esac
  done
}

passed=0 failed=0 skipped=0
for name in "${names[@]}"; do
  is_selected "$name" || continue
  reason=$(missing "${commands[$name]}")
  if [ -n "$reason" ]; then
    echo "skipped $name: $reason"
    skipped=$((skipped + 1))
    continue
  fi
  case_dir=$work/$name
  rm -rf "$case_dir"
  mkdir -p "$case_dir"
  # A separate subshell, because errexit has no effect in a condition.
  set +e
  (set -e; eval "${commands[$name]}") >"$work/$name.log" 2>&1 </dev/null
  status=$?
  set -e
  if [ $status -eq 0 ]; then
    echo "passed  $name"
    passed=$((passed + 1))
    rm -rf "$case_dir"
  else
    echo "FAILED  $name: see $work/$name.log"
    tail -n 30 "$work/$name.log"
    failed=$((failed + 1))
  fi
done
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ] && [ $passed -gt 0 ]
