# SPDX-License-Identifier: Apache-2.0
#
# The Debian packages that msb needs, and functions that install missing ones. To be sourced.

msb_build_packages=(g++ cmake ninja-build ccache pkg-config git ca-certificates libssl-dev
                    libsqlite3-dev libfmt-dev nlohmann-json3-dev libarchive-dev libzstd-dev zlib1g-dev
                    libcurl4-openssl-dev libcli11-dev e2fsprogs)
msb_test_packages=(python3 libgtest-dev libgmock-dev zstd libarchive-tools qemu-utils libvalijson-dev
                   groff-base zsh fish libcpp-httplib-dev docker-registry skopeo openssl curl bindfs)

# tests/package/debs.sh builds and checks packages with these.
msb_package_packages=(abigail-tools dpkg-dev lintian)

# docs/site/build.sh builds the documentation with these.
msb_documentation_packages=(doxygen graphviz python3)

# tests/environments/run.sh mounts file systems with these, and skips those that it cannot mount. It
# pushes to docker-registry.
msb_environment_packages=(bindfs xfsprogs btrfs-progs dosfstools docker-registry)

# msb_install_missing PACKAGE...: installs missing packages. Does not run apt if none is missing.
msb_install_missing() {
  local missing=() package
  for package in "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q '^install ok installed' ||
      missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  local sudo=()
  [ "$(id -u)" -eq 0 ] || sudo=(sudo)
  echo "installing ${missing[*]}"
  "${sudo[@]}" apt-get update -qq
  DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq --no-install-recommends \
    "${missing[@]}" >/dev/null
}

# Installs clang and its libFuzzer, whose package has clang's major version in its name.
msb_install_fuzz_dependencies() {
  msb_install_missing clang
  msb_install_missing "libclang-rt-$(clang -dumpversion | cut -d. -f1)-dev"
}

msb_install_build_dependencies() {
  msb_install_missing "${msb_build_packages[@]}" "$@"
  # The C code of BLAKE3. Debian 12 and 13 have it only in a package of Rust sources.
  [ -n "$(ls -d /usr/share/cargo/registry/blake3-*/c 2>/dev/null)" ] ||
    dpkg-query -W libblake3-dev >/dev/null 2>&1 || msb_install_missing librust-blake3-dev
}
