#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes the guest that the VM tests boot: Debian's kernel for clouds and an initial RAM disk with
# busybox and guest_init.sh. A second RAM disk also has QEMU's guest agent and ext4; it is larger, so
# the guest takes longer to boot. Installs no packages. Needs apt, busybox-static and cpio.
#   tests/vm/make_guest.sh DIR    writes DIR/vmlinuz, DIR/initrd.gz and DIR/initrd-agent.gz, unless
#                                 they are up to date
set -euo pipefail
init=$(dirname "$(readlink -f "$0")")/guest_init.sh
[ $# -eq 1 ] || { echo "usage: make_guest.sh DIR" >&2; exit 2; }
dir=$1
modules=(virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk
         button evdev)
applets=(sh cat dd echo insmod mount poweroff printf sleep stty sync tr usleep)
agent_modules=(virtio_console crc16 crc32c_generic libcrc32c mbcache jbd2 ext4)
agent_applets=(env false grep head id kill ls mkdir mv pidof printenv pwd rm su test touch true umount
               wc yes)

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

# Prints the packages of libraries that a package depends on.
libraries_of() {
  apt-cache depends --no-recommends --no-suggests "$1" 2>/dev/null |
    sed -n 's/^ *\(Pre\)\?Depends: \(lib[^<]*\)$/\2/p'
}

# Downloads the package that linux-image-cloud-amd64, which is empty, depends on, and those of the
# guest agent, whose libraries this machine may not have.
download_packages() {
  local kernel library libraries
  kernel=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null |
    sed -n 's/^ *Depends: \(linux-image-[0-9].*\)$/\1/p' | head -n 1)
  libraries=$(libraries_of qemu-guest-agent)
  [ -n "$kernel" ] && [ -n "$libraries" ] || return 1
  for library in $libraries; do libraries+=" $(libraries_of "$library")"; done
  # Without apt's sandbox user, which could not write here.
  # shellcheck disable=SC2046,SC2086
  (cd "$build" && apt-get -qq -o APT::Sandbox::User="$(id -un)" download "$kernel" \
    qemu-guest-agent $(printf '%s\n' $libraries | sort -u))
}

# Old package lists may name packages that the mirror no longer has.
if ! download_packages 2>"$build/apt.log"; then
  sudo=()
  [ "$(id -u)" -eq 0 ] || sudo=(sudo)
  "${sudo[@]}" apt-get update -qq
  download_packages
fi
dpkg-deb -x "$build"/linux-image-*.deb "$build/kernel"
kernel=$build/kernel
[ -d "$kernel/lib/modules" ] || kernel=$build/kernel/usr # Since Debian 13.

# Copies modules of the kernel to DIR/modules. Some kernels have some of them built in.
copy_modules() {
  local dir=$1 module file
  shift
  mkdir -p "$dir/modules"
  for module in "$@"; do
    file=$(find "$kernel/lib/modules" -name "$module.ko*")
    case $file in
      *.xz) busybox xz -dc "$file" >"$dir/modules/$module.ko" ;;
      ?*) cp "$file" "$dir/modules/" ;;
    esac
  done
}

# Prints the files in a directory as an archive for an initial RAM disk.
archive() {
  (cd "$1" && find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0)
}

root=$build/root
mkdir -p "$root"/{bin,dev,proc,modules}
cp "$(command -v busybox)" "$root/bin/busybox"
for applet in "${applets[@]}"; do ln -s busybox "$root/bin/$applet"; done
copy_modules "$root" "${modules[@]}"
install -m 755 "$init" "$root/init"
archive "$root" | gzip -1 -n >"$build/initrd.gz"

# The files of the agent, with the libraries that its dynamic linker finds.
packages=$build/packages
for package in "$build"/{qemu-guest-agent,lib}*.deb; do dpkg-deb -x "$package" "$packages"; done
linker=$(find "$packages" -name 'ld-linux-*.so.*' | head -n 1)
libraries=$(find "$packages" -name '*.so.*' -printf '%h\n' | sort -u | paste -sd:)
agent=$build/agent
mkdir -p "$agent"/{bin,data,etc,lib,lib64,root,run,sbin,sys,tmp}
cp "$(find "$packages" -name qemu-ga)" "$agent/sbin/"
cp "$linker" "$agent/lib64/"
"$linker" --library-path "$libraries" --list "$agent/sbin/qemu-ga" |
  sed -n 's/^.* => \(.*\) (0x.*$/\1/p' | xargs -I{} cp -L {} "$agent/lib/"
for applet in "${agent_applets[@]}"; do ln -s busybox "$agent/bin/$applet"; done
copy_modules "$agent" "${agent_modules[@]}"
printf '%s\n' root:x:0:0::/root:/bin/sh guest:x:1000:1000::/tmp:/bin/sh >"$agent/etc/passwd"
printf '%s\n' root:x:0: guest:x:1000: >"$agent/etc/group"
# Linux unpacks one archive after the other. This one is not compressed, because decompression is slow
# without an accelerator, and comes first, because it must be aligned.
{ archive "$agent" && cat "$build/initrd.gz"; } >"$build/initrd-agent.gz"
cp "$build"/kernel/boot/vmlinuz-* "$build/vmlinuz"

mv "$build/initrd.gz" "$build/initrd-agent.gz" "$build/vmlinuz" "$dir/"
echo "$stamp" >"$build/stamp"
mv "$build/stamp" "$dir/stamp" # Last: the guest is complete now.
