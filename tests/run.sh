#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs missing dependencies (Debian packages, each named), builds, and runs every test.
#   tests/run.sh              release build: the tests of all suites, and the package tests
#   tests/run.sh --sanitize   the tests under ASan + UBSan and under TSan, and 15 s of fuzzing
#   tests/run.sh --lint       the documentation, clang-format and clang-tidy
#   tests/run.sh --environments  every operation on all file systems that can be mounted here
#   tests/run.sh --soak N     N minutes of random operations in processes that are killed
# MSB_PEERS=DIR: the interop tests and the soak also run the released runtimes DIR/msb-VERSION.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/packages.sh
msb_install_build_dependencies "${msb_test_packages[@]}"
. tests/ccache.sh
. tests/summary.sh
# Only CI, whose compiler is known, turns warnings into errors.
warnings=-DMSB_WARNINGS_AS_ERRORS=${MSB_WARNINGS_AS_ERRORS:-OFF}

# Makes the guest that the VM tests boot.
prepare_guest() {
  msb_install_missing qemu-system-x86 qemu-utils busybox-static cpio
  tests/vm/make_guest.sh build/guest
  export MSB_TEST_GUEST=$PWD/build/guest
}

configure() { msb_summary cmake --preset "$1" "$warnings" >/dev/null; }

build_and_test() {
  local preset=$1
  echo "== $preset"
  configure "$preset"
  msb_summary cmake --build --preset "$preset"
  # Many tests wait, for the disk or for a guest.
  ctest --preset "$preset" -j $(($(nproc) * 2)) --progress && return
  # Print the failures once more, where they are easy to find.
  echo "== $preset: the failed tests, run again one at a time"
  ctest --preset "$preset" --rerun-failed || true
  exit 1
}

# soak MINUTES: runs the library with each released runtime for a fifth of the time, and alone for
# the rest.
soak() {
  local seconds=$(($1 * 60)) peer peers=()
  for peer in 0.6.18 0.7.2; do
    [ ! -x "${MSB_PEERS:-}/msb-$peer" ] || peers+=("$MSB_PEERS/msb-$peer")
  done
  echo "== soak"
  configure release
  msb_summary cmake --build --preset release --target soak
  build/release/tests/soak --seconds $((seconds - ${#peers[@]} * seconds / 5))
  for peer in "${peers[@]}"; do
    build/release/tests/soak --seconds $((seconds / 5)) --peer "$peer"
  done
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
    # Each report is a failure, even in a child process that a test expects to be killed. Processes
    # that tests fork while threads run start threads themselves.
    TSAN_OPTIONS="halt_on_error=1 die_after_fork=0" build_and_test tsan
    echo "== fuzz"
    msb_install_fuzz_dependencies
    tests/fuzz/run.sh 15
    ;;
  --lint)
    msb_install_missing clang-format clang-tidy "${msb_documentation_packages[@]}"
    echo "== documentation"
    docs/diagrams/draw.py --check
    docs/site/check_links.py
    docs/site/build.sh build/site
    docs/site/check_links.py build/site
    echo "== clang-format"
    git ls-files '*.h' '*.cc' | xargs clang-format --dry-run -Werror
    echo "== clang-tidy"
    configure lint
    # The batches of a unity build have each header once, so this takes minutes, not half an hour.
    { find build/lint -name 'unity_*.cxx' &&
      git ls-files 'examples/*.cc' 'tools/*/main.cc'; } |
      xargs -P "$(nproc)" -n 1 clang-tidy --quiet -p build/lint \
        --checks=-bugprone-suspicious-include 2>&1 |
      { grep -vE '^[0-9]+ warnings? (generated|treated)|^Suppressed|^Use -' || true; } |
      tee build/clang-tidy.log
    [ ! -s build/clang-tidy.log ]
    ;;
  --soak)
    [[ "${2:-}" =~ ^[1-9][0-9]*$ ]] || { echo "usage: tests/run.sh --soak MINUTES" >&2; exit 2; }
    msb_install_missing qemu-utils
    soak "$2"
    ;;
  --environments)
    msb_install_missing "${msb_environment_packages[@]}"
    configure release
    msb_summary cmake --build --preset release --target environments
    tests/environments/run.sh build/release/tests/environments
    ;;
  *)
    echo "usage: tests/run.sh [--sanitize | --lint | --environments | --soak MINUTES]" >&2
    exit 2
    ;;
esac
