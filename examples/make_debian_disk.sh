#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes a bootable Debian disk for the qemu backend: an MBR disk with GRUB, Debian's kernel for
# virtual machines, and a console on the first serial port. The guest takes an address from DHCP and
# shuts down when its power button is pressed. Needs root, and the Debian packages debootstrap,
# e2fsprogs, fdisk, grub-common, grub-pc-bin and qemu-utils.
#
#   make_debian_disk.sh DISK.qcow2 [PUBLIC_KEY_FILE]
#
# PUBLIC_KEY_FILE: an SSH key that may log in as root. Without it the guest has no SSH server, and
# logging in is not possible. These variables change the defaults:
#   SUITE=bookworm  SIZE=4G  MIRROR=http://deb.debian.org/debian
#   PACKAGES=       additional packages, separated by commas
set -euo pipefail
export PATH=$PATH:/usr/sbin:/sbin
[ $# -eq 1 ] || [ $# -eq 2 ] || {
  echo "usage: make_debian_disk.sh DISK.qcow2 [PUBLIC_KEY_FILE]" >&2
  exit 2
}
disk=$(realpath -m "$1")
key=${2:+$(realpath -e "$2")}
suite=${SUITE:-bookworm}
size=${SIZE:-4G}
mirror=${MIRROR:-http://deb.debian.org/debian}
packages=linux-image-cloud-amd64,systemd-sysv,dbus,udev,iproute2${PACKAGES:+,$PACKAGES}
[ -z "$key" ] || packages+=,openssh-server

[ "$(id -u)" -eq 0 ] || { echo "debootstrap needs root; run this with sudo" >&2; exit 1; }
for tool in debootstrap mkfs.ext4 sfdisk grub-mkimage qemu-img /usr/lib/grub/i386-pc/boot.img; do
  command -v "$tool" >/dev/null || [ -f "$tool" ] || {
    echo "missing $tool; install debootstrap e2fsprogs fdisk grub-common grub-pc-bin qemu-utils" >&2
    exit 1
  }
done
mkdir -p "$(dirname "$disk")"
work=$(mktemp -d "$(dirname "$disk")/.debian-XXXXXX")
trap 'rm -rf "$work"' EXIT
root=$work/root

echo "installing $suite"
debootstrap --variant=minbase --include="$packages" "$suite" "$root" "$mirror" >"$work/log" ||
  { tail -n 20 "$work/log" >&2; exit 1; }
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
echo debian >"$root/etc/hostname"
: >"$root/etc/machine-id" # Each disk gets an id of its own at its first boot.
echo "/dev/vda1 / ext4 errors=remount-ro,discard 0 1" >"$root/etc/fstab"
printf '[Match]\nName=en* eth*\n\n[Network]\nDHCP=yes\n' >"$root/etc/systemd/network/dhcp.network"
echo "nameserver 10.0.2.3" >"$root/etc/resolv.conf" # The name server of QEMU's user network.
systemctl --quiet --root="$root" enable systemd-networkd
if [ -n "$key" ]; then
  install -d -m 700 "$root/root/.ssh"
  install -m 600 "$key" "$root/root/.ssh/authorized_keys"
fi

echo "writing the disk"
raw=$work/disk.raw
truncate -s "$size" "$raw"
printf 'label: dos\nstart=2048, type=83, bootable\n' | sfdisk --quiet "$raw"
# The partition begins at 1 MiB and extends to the end of the disk. GRUB must be able to read it.
blocks=$((($(stat -c %s "$raw") - (1 << 20)) / 4096))
mkfs.ext4 -q -F -b 4096 -O ^metadata_csum_seed,^orphan_file -E offset=$((1 << 20)) -d "$root" \
  "$raw" "$blocks"
# GRUB: 440 bytes in the first sector, and the rest in the gap before the partition.
cat >"$work/grub.cfg" <<'CONFIG'
set root=(hd0,msdos1)
linux /vmlinuz root=/dev/vda1 ro console=ttyS0 panic=-1
initrd /initrd.img
boot
CONFIG
grub-mkimage -O i386-pc -p /boot/grub -c "$work/grub.cfg" -o "$work/core.img" \
  biosdisk part_msdos ext2 linux
dd if=/usr/lib/grub/i386-pc/boot.img of="$raw" bs=440 count=1 conv=notrunc status=none
dd if="$work/core.img" of="$raw" bs=512 seek=1 conv=notrunc status=none

qemu-img convert -O qcow2 "$raw" "$work/disk.qcow2"
mv "$work/disk.qcow2" "$disk"
echo "made $disk"
