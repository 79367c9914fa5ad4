#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The init of the test guest: does the jobs that the kernel's command line names, reports on the
# console, and shuts down when the power button is pressed. Slot n is the 512 bytes at n MiB of the
# disk.
#   msb.write=SLOT:WORD  writes the word to the slot; may be given several times
#   msb.exit             shuts down by itself when the jobs are done
#   msb.panic            panics when the jobs are done
#   msb.deaf             ignores the power button
# With initrd-agent.gz also these:
#   msb.mount            mounts the disk, which has an ext4 file system, at /data
#   msb.agent            starts the guest agent
#   msb.agent=garbage    starts a script in its place that answers everything with garbage
# The console shows GUEST-UP, "SLOT n WORD" for each slot ("-" for an empty one), the slots again
# after the writes, GUEST-READY, and GUEST-DOWN when everything is on the disk.

mount -t devtmpfs devtmpfs /dev
mount -t proc proc /proc
[ ! -d /sys ] || mount -t sysfs sysfs /sys
echo GUEST-UP
for module in virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk \
  button evdev virtio_console crc16 crc32c_generic libcrc32c mbcache jbd2 ext4; do
  # Some kernels have some of these built in.
  if [ -e /modules/$module.ko ]; then insmod /modules/$module.ko; fi
done
while [ ! -e /dev/vda ]; do usleep 10000; done

show_slots() {
  for slot in 0 1 2 3; do
    word=$(dd if=/dev/vda bs=512 skip=$((slot * 2048)) count=1 2>/dev/null | tr -d '\0')
    echo "SLOT $slot ${word:--}"
  done
}

shut_down() {
  sync
  echo GUEST-DOWN
  stty -F /dev/console sane # Returns when the console has sent everything.
  poweroff -f
}

# Waits for the port of the guest agent, and prints the path of its device.
agent_port() {
  while :; do
    for port in /sys/class/virtio-ports/*; do
      case $(cat "$port/name" 2>/dev/null) in
        org.qemu.guest_agent.0) echo "/dev/${port##*/}" && return ;;
      esac
    done
    usleep 10000
  done
}

at_end=listen
agent=
show_slots
for parameter in $(cat /proc/cmdline); do
  case $parameter in
    msb.write=*)
      job=${parameter#*=}
      # conv=fsync also flushes the disk's own cache, which sync alone does not.
      printf %s "${job#*:}" |
        dd of=/dev/vda bs=512 seek=$((${job%%:*} * 2048)) conv=notrunc,sync,fsync 2>/dev/null
      ;;
    msb.exit) at_end=exit ;;
    msb.panic) at_end=panic ;;
    msb.deaf) at_end=deaf ;;
    msb.mount) mount -t ext4 /dev/vda /data ;;
    msb.agent) agent=real ;;
    msb.agent=garbage) agent=garbage ;;
  esac
done
sync
show_slots

# The kernel queues events only for open devices. So open them before the host presses the button.
descriptors=
if [ $at_end = listen ]; then
  descriptor=3
  for device in /dev/input/event*; do
    eval "exec $descriptor<$device"
    descriptors="$descriptors $descriptor"
    descriptor=$((descriptor + 1))
  done
fi
case $agent in
  real) HOME=/root qemu-ga -m virtio-serial -p "$(agent_port)" -t /run -f /run/qemu-ga.pid & ;;
  garbage)
    # While no host is connected, reading ends at once.
    while :; do
      if read -r line; then printf '\377{"return": "%s\n' "$line"; else usleep 10000; fi
    done <>"$(agent_port)" >&0 &
    ;;
esac
echo GUEST-READY
case $at_end in
  exit) shut_down ;;
  panic) echo c >/proc/sysrq-trigger ;;
esac
for descriptor in $descriptors; do
  { dd bs=24 count=1 of=/dev/null 2>/dev/null <&"$descriptor" && shut_down; } &
done
while :; do sleep 3600; done
