#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes the guest that the VM tests boot: Debian's kernel for clouds and an initial RAM disk with
# busybox and guest_init.sh. Installs no packages. Needs apt, busybox-static and cpio.
#   tests/vm/make_guest.sh DIR    writes DIR/vmlinuz and DIR/initrd.gz, unless they are up to date
set -euo pipefail
init=$(dirname "$(readlink -f "$0")")/guest_init.sh
[ $# -eq 1 ] || { echo "usage: make_guest.sh DIR" >&2; exit 2; }
dir=$1
modules=(virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk
         button evdev)
applets=(sh cat dd echo insmod mount poweroff printf sleep stty sync tr usleep)

# The lock makes concurrent runs build it only once. The stamp identifies the scripts that built it.
mkdir -p "$dir"
exec 9>"$dir/lock"
flock 9
stamp=$(cat "$init" "$0" | sha256sum | cut -d' ' -f1)
[ "$(cat "$dir/stamp" 2>/dev/null || true)" != "$stamp" ] || exit 0
rm -f "$dir/stamp"
rm -rf "$dir"/build-*
build=$(mktemp -d "$dir/build-XXXXXX")
trap 'rm -rf "$build"' EXIT

# Downloads the package that linux-image-cloud-amd64, which is empty, depends on.
download_kernel() {
  local package
  package=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null |
    sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p' | head -n 1)
  [ -n "$package" ] || return 1
  # Without apt's sandbox user, which could not write here.
  (cd "$build" && apt-get -qq -o APT::Sandbox::User="$(id -un)" download "$package")
}

# Old package lists may name packages that the mirror no longer has.
if ! download_kernel 2>"$build/apt.log"; then
  sudo=()
  [ "$(id -u)" -eq 0 ] || sudo=(sudo)
  "${sudo[@]}" apt-get update -qq
  download_kernel
fi
dpkg-deb -x "$build"/linux-image-*.deb "$build/kernel"
kernel=$build/kernel
[ -d "$kernel/lib/modules" ] || kernel=$build/kernel/usr # Since Debian 13.

root=$build/root
mkdir -p "$root"/{bin,dev,proc,modules}
cp "$(command -v busybox)" "$root/bin/busybox"
for applet in "${applets[@]}"; do ln -s busybox "$root/bin/$applet"; done
for module in "${modules[@]}"; do
  file=$(find "$kernel/lib/modules" -name "$module.ko*")
  case $file in
    *.xz) busybox xz -dc "$file" >"$root/modules/$module.ko" ;;
    ?*) cp "$file" "$root/modules/" ;;
  esac
done
install -m 755 "$init" "$root/init"
(cd "$root" && find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0) |
  gzip -1 -n >"$build/initrd.gz"
cp "$build"/kernel/boot/vmlinuz-* "$build/vmlinuz"

mv "$build/initrd.gz" "$build/vmlinuz" "$dir/"
echo "$stamp" >"$build/stamp"
mv "$build/stamp" "$dir/stamp" # Last: the guest is complete now.
