#!/usr/bin/env bash
# Installs what is missing (Debian packages, by name), builds, and runs every test.
#   tests/run.sh              release build: unit, integration, interop, fault, VM and package tests
#   tests/run.sh --sanitize   the tests under ASan + UBSan, and under TSan, and 15 s of fuzzing
#   tests/run.sh --lint       clang-format and clang-tidy
# MSB_PEERS=DIR: the interop tests also run the released runtimes DIR/msb-VERSION.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/packages.sh
msb_install_build_dependencies "${msb_test_packages[@]}"
export CMAKE_CXX_COMPILER_LAUNCHER=ccache CMAKE_C_COMPILER_LAUNCHER=ccache
# What depends on the precompiled header must hit the cache too.
export CCACHE_SLOPPINESS=pch_defines,time_macros
# And what was compiled in another clone.
export CCACHE_BASEDIR=$PWD CCACHE_NOHASHDIR=1

# What the VM tests boot.
prepare_guest() {
  msb_install_missing qemu-system-x86 qemu-utils busybox-static cpio
  tests/vm/make_guest.sh build/guest
  export MSB_TEST_GUEST=$PWD/build/guest
}

build_and_test() {
  local preset=$1
  echo "== $preset"
  cmake --preset "$preset" >build-"$preset".log 2>&1 || { cat build-"$preset".log; exit 1; }
  rm build-"$preset".log
  cmake --build --preset "$preset" | tail -n 1
  ctest --preset "$preset" -j "$(nproc)" --progress
}

case "${1:-}" in
  "")
    prepare_guest
    build_and_test release
    echo "== package"
    tests/package/run.sh build/package
    ;;
  --sanitize)
    prepare_guest
    build_and_test asan
    # Every report is a failure, also in a child process that a test expects to end.
    TSAN_OPTIONS=halt_on_error=1 build_and_test tsan
    echo "== fuzz"
    msb_install_fuzz_dependencies
    tests/fuzz/run.sh 15
    ;;
  --lint)
    msb_install_missing clang-format clang-tidy
    echo "== clang-format"
    git ls-files '*.h' '*.cc' | xargs clang-format --dry-run -Werror
    echo "== clang-tidy"
    cmake --preset debug >/dev/null
    git ls-files 'src/*.cc' 'examples/*.cc' |
      xargs -P "$(nproc)" -n 4 clang-tidy --quiet -p build/debug 2>&1 |
      { grep -vE '^[0-9]+ warnings? (generated|treated)|^Suppressed|^Use -' || true; } |
      tee build/clang-tidy.log
    [ ! -s build/clang-tidy.log ]
    ;;
  *)
    echo "usage: tests/run.sh [--sanitize | --lint]" >&2
    exit 2
    ;;
esac
