#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Tries every operation of the API in every environment that can be made here, and prints the table
# of docs/environments.md; --write puts it there.
#   tests/environments/run.sh [--write] [PROGRAM]
# PROGRAM: the environments program. Default: the newest in the build directories. Needs root for
# mounting. An environment that cannot be made is listed as skipped, with the reason. The exit
# status is 1 if an operation fails that is not expected to, or the program fails in an environment
# that could be made.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
write=false
[ "${1:-}" = --write ] && { write=true; shift; }
program=${1:-$(ls -t "$here"/../../build/*/tests/environments 2>/dev/null | head -1 || true)}
[ -x "$program" ] || { echo "build the target 'environments' first" >&2; exit 2; }
program=$(realpath "$program")
PATH=$PATH:/usr/sbin:/sbin
work=$(mktemp -d /var/tmp/msb-environments.XXXXXX)
results=$work/results
mkdir "$results"
trap 'rm -rf "$work"' EXIT

# reason LOG: prints the last message, without the directory of this run and the full stop.
reason() { grep -v 'dmesg(1)\|^made$' "$1" | tail -1 | sed "s|$work/||; s/\\.\$//"; }

# failure LOG: prints the result of an environment whose command failed. If the command had said that
# the environment was made, the program failed.
failure() {
  if grep -q '^made$' "$1"; then
    printf 'the program\tfailed: %s\n' "$(reason "$1")"
  else
    printf 'skipped\tcannot be made: %s\n' "$(reason "$1")"
  fi
}

names=() titles=()
# environment NAME TITLE REQUIREMENT... -- COMMAND: runs COMMAND, which prints the results. As root,
# runs it in a mount namespace of its own. REQUIREMENT: root, a program, or a path that must exist.
environment() {
  local name=$1 title=$2 missing=()
  shift 2
  while [ "$1" != -- ]; do
    case $1 in
      root) [ "$(id -u)" -eq 0 ] || missing+=("root") ;;
      /*) [ -e "$1" ] || missing+=("$1") ;;
      *) command -v "$1" >/dev/null || missing+=("the program $1") ;;
    esac
    shift
  done
  shift
  names+=("$name") titles+=("$title")
  local out=$results/$name
  if [ ${#missing[@]} -gt 0 ]; then
    printf 'skipped\tneeds %s\n' "$(IFS=,; echo "${missing[*]}" | sed 's/,/, /g')" >"$out"
  elif [ "$(id -u)" -eq 0 ]; then
    mkdir -p "$work/$name"
    (cd "$work/$name" && export program && unshare -m bash -euo pipefail -c "$*") >"$out" 2>"$out.err" ||
      failure "$out.err" >"$out"
  else
    mkdir -p "$work/$name"
    (cd "$work/$name" && export program && bash -euo pipefail -c "$*") >"$out" 2>"$out.err" ||
      failure "$out.err" >"$out"
  fi
  echo "$title: $(grep -c $'\tok$' "$out" || true) ok, $(grep -vc $'\tok$' "$out" || true) not" >&2
}

# The commands print "made" when the environment is made.
all='echo made >&2; "$program" make root; "$program" try root root/out'
# loop MKFS: prints the command that makes the home on a file system in a file, and tries it.
loop() { echo "truncate -s 512M disk.img; $* disk.img >/dev/null 2>&1; mkdir m; mount -o loop disk.img m; cd m; $all"; }

environment local 'file system of /var/tmp' -- "$all"
environment ext4 'ext4, loop' root mkfs.ext4 /dev/loop-control -- "$(loop mkfs.ext4 -q -F)"
environment xfs 'XFS, loop' root mkfs.xfs /dev/loop-control -- "$(loop mkfs.xfs -q -m reflink=1)"
environment btrfs 'Btrfs, loop' root mkfs.btrfs /dev/loop-control -- "$(loop mkfs.btrfs -q)"
environment vfat 'FAT, loop' root mkfs.vfat /dev/loop-control -- "$(loop mkfs.vfat)"
environment tmpfs 'tmpfs, limited' root -- "mkdir m; mount -t tmpfs -o size=256m x m; cd m; $all"
environment tmpfs0 'tmpfs, unlimited' root -- "mkdir m; mount -t tmpfs -o size=0 x m; cd m; $all"
environment ramfs 'ramfs' root -- "mkdir m; mount -t ramfs x m; cd m; $all"
environment bindfs 'FUSE (bindfs)' root bindfs /dev/fuse -- \
  "mkdir b m; bindfs b m; (cd m; $all); umount m"
overlay='mount -t tmpfs x t; mkdir t/l t/u t/w'
environment upper 'overlayfs, upper layer' root -- \
  "mkdir t m; $overlay; mount -t overlay -o lowerdir=t/l,upperdir=t/u,workdir=t/w x m; cd m; $all"
environment lower 'overlayfs, home in the lower layer' root -- \
  "mkdir t m; $overlay; \"\$program\" make t/l/root
   mount -t overlay -o lowerdir=t/l,upperdir=t/u,workdir=t/w x m
   echo made >&2; \"\$program\" try m/root m/root/out"
environment readonly 'read-only bind mount of a home' root -- \
  'mkdir m; "$program" make root; mount --bind root m; mount -o remount,ro,bind m
   echo made >&2; "$program" try "$PWD/m" "$PWD/out"'
environment user 'home of another user, readable' root setpriv -- \
  'chmod 755 . ..; setpriv --reuid 65534 --regid 65534 --clear-groups true
   echo made >&2; "$program" make root; chmod -R a+rX root; mkdir out; chmod 777 out
   cp "$program" p; setpriv --reuid 65534 --regid 65534 --clear-groups env HOME=/ ./p try "$PWD/root" "$PWD/out"'
environment pid 'PID namespace of its own' root -- \
  '"$program" make root; unshare --pid --fork --mount-proc true; echo made >&2
   unshare --pid --fork --mount-proc "$program" try root root/out'

without() { echo "echo made >&2; \"\$program\" make root; \"\$program\" try root root/out $*"; }
environment rename-flags 'without RENAME_NOREPLACE and RENAME_EXCHANGE (shim, EINVAL)' -- "$(without rename-flags)"
environment links 'without hard links (shim, EPERM)' -- "$(without links)"
environment locks 'without flock (shim, ENOLCK)' -- "$(without locks)"
environment holes 'without SEEK_DATA and SEEK_HOLE (shim, EINVAL)' -- "$(without holes)"
environment flush 'without fsync of directories (shim, EINVAL)' -- "$(without directory-flush)"
environment copies 'without FICLONE and copy_file_range (shim)' -- "$(without clone kernel-copy)"
environment none 'without all of these (shim)' -- \
  "$(without rename-flags links locks holes directory-flush clone kernel-copy)"

# Reports whether Btrfs and XFS share the blocks of a raw snapshot, according to its extents.
reflink() {
  local mkfs=$1
  shift
  command -v "$mkfs" >/dev/null && [ "$(id -u)" -eq 0 ] || { echo "skipped: needs root and $mkfs"; return; }
  mkdir -p "$work/reflink-$mkfs"
  (cd "$work/reflink-$mkfs" && export program && unshare -m bash -euo pipefail -c "
    truncate -s 512M disk.img; $mkfs $* disk.img >/dev/null 2>&1; mkdir m; mount -o loop disk.img m
    \"\$program\" make m/root; sync; disk=\$(ls m/root/home/snapshots/raw/upper*)
    filefrag -v \"\$disk\" | grep -q shared && echo 'shared' || echo 'not shared'") 2>/dev/null ||
    echo "skipped: cannot be mounted"
}

# Succeeds for environments in which errors are expected; these do not fail this script.
expected() { case $1 in readonly | user) true ;; *) false ;; esac; }

status=0
table() {
  local operations name i result kind
  operations=$(cut -f1 "$results/local")
  for i in "${!names[@]}"; do echo "$((i + 1)). ${titles[$i]}"; done
  printf '\n| operation |'; for i in "${!names[@]}"; do printf ' %s |' $((i + 1)); done
  printf '\n|---|'
  printf '%.0s---|' "${names[@]}"; printf '\n'
  while read -r operation; do
    printf '| %s |' "$operation"
    for name in "${names[@]}"; do
      result=$(awk -F '\t' -v o="$operation" '$1 == o { print $2 }' "$results/$name")
      if grep -q '^skipped' "$results/$name"; then
        printf ' skipped |'
      elif [ "$result" = ok ]; then
        printf ' ok |'
      else
        kind=${result%%:*}
        [[ $kind =~ ^[A-Za-z]+$ ]] || kind=failed
        printf ' %s |' "$kind"
      fi
    done
    printf '\n'
  done <<<"$operations"
}

notes() {
  local i name line
  echo
  echo "Blocks of a raw snapshot on XFS: $(reflink mkfs.xfs -q -m reflink=1); on Btrfs:" \
    "$(reflink mkfs.btrfs -q)."
  for i in "${!names[@]}"; do
    name=${names[$i]}
    grep -q $'\tok$' "$results/$name" || [ -s "$results/$name" ] || echo "${titles[$i]}: no result"
    if grep -q '^skipped' "$results/$name"; then
      echo; echo "Skipped, ${titles[$i]}: $(cut -f2 "$results/$name")."
    elif grep -qv $'\tok$' "$results/$name"; then
      echo; echo "${titles[$i]}:"; echo
      grep -v $'\tok$' "$results/$name" | sed "s#$work/##g" | while IFS=$'\t' read -r operation error; do
        echo "* $operation: ${error:-no result}"
      done
    fi
  done
}

for name in "${names[@]}"; do
  ! grep -q '^the program' "$results/$name" || status=1
  grep -q '^skipped' "$results/$name" || expected "$name" || ! grep -qv $'\tok$' "$results/$name" || status=1
done
{
  echo "Linux $(uname -r | cut -d. -f1,2), $(date +%F)."
  echo
  table
  notes
} >"$work/table"
if $write; then
  doc=$here/../../docs/environments.md
  { sed '/^<!-- table/q' "$doc"; echo; cat "$work/table"; } >"$work/doc"
  cp "$work/doc" "$doc"
else
  cat "$work/table"
fi
exit $status
