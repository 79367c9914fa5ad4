#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Follows the README in a fresh installation of Debian: installs its packages, runs its plain CMake
# lines and examples/quickstart.sh; or runs another command there. Needs root, debootstrap and a
# Debian mirror.
#   tests/package/debian.sh SUITE ROOT [COMMAND...]
# SUITE: bookworm (Debian 12) or trixie (Debian 13). ROOT: the directory of the installation, made
# if absent. COMMAND: runs only this command, in the project's root there, such as tests/run.sh.
# MSB_DEBIAN_MIRROR: default http://deb.debian.org/debian
set -euo pipefail
cd "$(dirname "$0")/../.."
suite=${1:?usage: debian.sh SUITE ROOT [COMMAND...]}
root=$(realpath -m "${2:?usage: debian.sh SUITE ROOT [COMMAND...]}")

if [ ! -e "$root/etc/debian_version" ]; then
  debootstrap --variant=minbase "$suite" "$root" \
    "${MSB_DEBIAN_MIRROR:-http://deb.debian.org/debian}" >/dev/null
fi
# The settings with which this machine reaches the mirror.
for file in /etc/resolv.conf /etc/apt/apt.conf.d/*proxy*; do
  [ ! -f "$file" ] || cp "$file" "$root$(dirname "$file")/"
done
rm -rf "$root/src/msb"
mkdir -p "$root/src/msb"
git ls-files -z --cached --others --exclude-standard | tar -c --null -T - | tar -x -C "$root/src/msb"

for dir in proc dev; do
  mountpoint -q "$root/$dir" || mount --rbind /$dir "$root/$dir"
  mount --make-rslave "$root/$dir"
done
trap 'umount -l "$root/proc" "$root/dev"' EXIT
in_root() {
  env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root \
    DEBIAN_FRONTEND=noninteractive chroot "$root" bash -c "set -e; cd /src/msb; $1"
}
if [ $# -gt 2 ]; then
  echo "== $suite: ${*:3}"
  in_root "${*:3}"
  exit
fi
# readme WORD: prints the code block of the README that begins with this word.
readme() { sed -n "/^    $1/,/^\$/p" README.md; }

echo "== $suite: packages"
in_root "apt-get update -qq"
in_root "$(readme apt-get | sed 's/apt-get install/apt-get install -qq -y --no-install-recommends/')" \
  >/dev/null
echo "== $suite: $(in_root 'g++ --version | head -n 1; cmake --version | head -n 1' | paste -sd, -)"
in_root "$(readme cmake)" >/dev/null
in_root "cmake -S tests/package -B /tmp/consumer && cmake --build /tmp/consumer &&
  /tmp/consumer/consumer /tmp/home && pkg-config --libs msb" | tail -n 2
echo "== $suite: examples/quickstart.sh"
in_root "examples/quickstart.sh"
