# The Debian packages that msb needs, and how to install what of them is missing. To be sourced.

msb_build_packages=(g++ cmake ninja-build ccache pkg-config git ca-certificates libssl-dev
                    libsqlite3-dev libfmt-dev nlohmann-json3-dev libarchive-dev libzstd-dev zlib1g-dev
                    e2fsprogs)
msb_test_packages=(libgtest-dev libgmock-dev zstd libarchive-tools qemu-utils)

# BLAKE3's C code: a library of its own from Debian 13 on, in Debian 12 a source package.
msb_blake3_package() {
  if [ -n "$(apt-cache policy libblake3-dev 2>/dev/null | grep Candidate)" ]; then
    echo libblake3-dev
  else
    echo librust-blake3-dev
  fi
}

# msb_install_missing PACKAGE...: nothing is asked of apt when all is there.
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

# clang with its libFuzzer, whose package has clang's major version in its name.
msb_install_fuzz_dependencies() {
  msb_install_missing clang
  msb_install_missing "libclang-rt-$(clang -dumpversion | cut -d. -f1)-dev"
}

msb_install_build_dependencies() {
  msb_install_missing "${msb_build_packages[@]}" "$@"
  [ -n "$(ls -d /usr/share/cargo/registry/blake3-*/c 2>/dev/null)" ] ||
    dpkg-query -W libblake3-dev >/dev/null 2>&1 || msb_install_missing "$(msb_blake3_package)"
}
