#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds the Debian packages and checks them.
#   tests/package/debs.sh BUILD_DIR           builds them in BUILD_DIR/packages, runs lintian and the
#                                             ABI check, and uses them without installing them
#   tests/package/debs.sh --install PACKAGES  installs the packages of this directory with apt, and
#                                             uses them; for a system that is thrown away
#   tests/package/debs.sh --debian SUITE DIR  builds them in an installation of Debian SUITE
#                                             (bookworm or trixie), and installs them in a fresh one.
#                                             Keeps both in DIR. Needs what debian.sh needs
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/packages.sh
. tests/summary.sh

# fail MESSAGE: prints it and exits.
fail() {
  echo "$1" >&2
  exit 1
}

# configure KIND: configures the static or the shared library with the flags of Debian's packages.
configure() {
  local shared=OFF
  [ "$1" = static ] || shared=ON
  eval "$(DEB_BUILD_MAINT_OPTIONS=hardening=+all dpkg-buildflags --export=sh)"
  CXXFLAGS="$CXXFLAGS $CPPFLAGS" CFLAGS="$CFLAGS $CPPFLAGS" LDFLAGS=$LDFLAGS \
    cmake -S . -B "$work/$1" -G Ninja -DCMAKE_BUILD_TYPE=None --install-prefix /usr \
    -DBUILD_SHARED_LIBS=$shared -DMSB_BUILD_TOOLS=$shared -DMSB_UNITY_BUILD=ON \
    -DMSB_ZSH_COMPLETIONS_DIR=share/zsh/vendor-completions \
    -DMSB_STATIC_BUILD_DIR="$work/static" -DMSB_WARNINGS_AS_ERRORS="${MSB_WARNINGS_AS_ERRORS:-OFF}"
}

# pack DIR: makes the packages in DIR, with the date of the changelog.
pack() {
  rm -rf "$1"
  SOURCE_DATE_EPOCH=$(dpkg-parsechangelog -l cmake/debian/changelog -S Timestamp) \
    cpack --config "$work/shared/CPackConfig.cmake" -B "$1" >"$work/cpack.log" 2>&1 ||
    fail "$(cat "$work/cpack.log")"
  rm -rf "$1/_CPack_Packages"
}

build() {
  local kind
  for kind in static shared; do
    (configure $kind) >"$work/$kind.log" || fail "$(cat "$work/$kind.log")"
    msb_summary cmake --build "$work/$kind"
  done
  pack "$work/packages"
}

# check_reproducible: makes the packages and the source archive once more, and expects the same
# bytes.
check_reproducible() {
  local file
  pack "$work/again"
  if [ -e .git ]; then
    cmake/source_archive.sh "$work/packages"
    cmake/source_archive.sh "$work/again" >/dev/null
  fi
  for file in "$work"/packages/*; do
    cmp "$file" "$work/again/${file##*/}" || fail "$file is not reproducible"
  done
}

# check_consumers: builds consumers of the unpacked packages.
check_consumers() {
  local root=$work/root package
  rm -rf "$root"
  for package in "$work"/packages/*.deb; do
    dpkg-deb -x "$package" "$root"
  done
  if readelf -d "$root/usr/bin/msb-snapshot" | grep -E 'R(UN)?PATH'; then
    fail "the program of a package has an rpath"
  fi
  . tests/package/use.sh
  use_with_cmake consumer-shared "$root/usr"
  needs_shared "$work/consumer-shared/consumer" || fail "the shared library is not used"
  use_with_cmake consumer-static "$root/usr" -DMSB_COMPONENT=static
  if needs_shared "$work/consumer-static/consumer"; then fail "the shared library is used"; fi
  use_with_pkg_config "$root/usr"
}

# install_packages DIR: installs the program alone, then the development files, and uses both.
install_packages() {
  local program
  work=$(mktemp -d)
  apt-get update -qq
  if program=$(compgen -G "$1/msb-snapshot_*.deb"); then
    apt_install "$program" "$(compgen -G "$1/libmsb[0-9]*.deb")"
    msb-snapshot --version
    msb-snapshot doctor
  fi
  apt_install "$1"/*.deb
  msb_install_missing g++ cmake make pkg-config
  # The program of the README, which uses a disk image in the working directory.
  sed -n '/^```cpp$/,/^```$/{//!p}' README.md >"$work/readme.cc"
  truncate -s 16M "$work/base.ext4"
  use_source=$work/readme.cc
  . tests/package/use.sh
  use_with_cmake readme /usr
  needs_shared "$work/readme/consumer" || fail "the shared library is not used"
  rm -rf /var/lib/agents /var/lib/elsewhere "$work/snapshot.tar.zst"
  use_with_pkg_config /usr
  rm -rf /var/lib/agents /var/lib/elsewhere "$work/snapshot.tar.zst"
  use_with_cmake readme-static /usr -DMSB_COMPONENT=static
  apt-get purge -qq -y msb-snapshot libmsb-dev 'libmsb[0-9]*' >/dev/null
  rm -rf "$work"
}

apt_install() {
  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" >/dev/null
}

# in_debian SUITE DIR: builds in a copy of DIR/SUITE, which keeps its compiler cache, and installs in
# a new copy.
in_debian() {
  local base=$2/$1 copy
  tests/package/debian.sh "$1" "$base" true
  for copy in build fresh; do
    # Not into other file systems, in case an interrupted run has left /dev mounted.
    [ $copy = build ] || rm -rf --one-file-system "$base-$copy"
    [ -e "$base-$copy" ] || cp -a --one-file-system --reflink=auto "$base" "$base-$copy"
  done
  tests/package/debian.sh "$1" "$base-build" tests/package/debs.sh build/debs
  cp -r "$base-build/src/msb/build/debs/packages" "$base-fresh/packages"
  tests/package/debian.sh "$1" "$base-fresh" tests/package/debs.sh --install /packages
}

usage="usage: debs.sh BUILD_DIR | --install PACKAGES | --debian SUITE DIR"
case "${1:?$usage}" in
  --install) install_packages "$(realpath "${2:?$usage}")" ;;
  --debian) in_debian "${2:?$usage}" "${3:?$usage}" ;;
  *)
    msb_install_build_dependencies "${msb_package_packages[@]}"
    . tests/ccache.sh
    work=$(realpath -m "$1")
    mkdir -p "$work"
    build
    lintian --fail-on error,warning --tag-display-limit 0 "$work"/packages/*.deb
    tests/package/abi.sh "$work/shared/libmsb.so"
    check_reproducible
    check_consumers
    ;;
esac
