#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Tries every operation of the API that needs no VM in every environment that can be made here, and
# prints the table of docs/environments.md; --write puts it there.
#   tests/environments/run.sh [--write] [PROGRAM]
# PROGRAM: the environments program. Default: the newest in the build directories. Needs root for
# mounting, and docker-registry for Push and Pull. An environment that cannot be made, and an
# operation that cannot be tried, is listed as skipped, with the reason. The exit status is 1 if an
# operation has another result than expected, if a file system that can share blocks does not, or
# if the program fails in an environment that could be made.
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
registry=
trap '[ -z "$registry" ] || kill "$registry" 2>/dev/null || true; rm -rf "$work"' EXIT

# reason LOG: prints the last message, without the directory of this run and the full stop.
reason() { grep -v 'dmesg(1)\|^made$' "$1" | tail -1 | sed "s|$work/||; s/\\.\$//"; }

# failure LOG: prints the result of an environment whose command failed. If the command had said that
# the environment was made, the program failed.
failure() {
  if grep -q '^made$' "$1"; then
    printf 'the program\t-\tfailed: %s\n' "$(reason "$1")"
  else
    printf 'skipped\t-\tcannot be made: %s\n' "$(reason "$1")"
  fi
}

# Starts a registry, and sets port when it listens.
start_registry() {
  cat >"$work/registry.yml" <<EOF
version: 0.1
log: {level: info}
storage: {filesystem: {rootdirectory: '$work/registry'}}
http: {addr: '127.0.0.1:0'}
EOF
  : >"$work/registry.log"
  docker-registry serve "$work/registry.yml" >>"$work/registry.log" 2>&1 &
  registry=$!
  while ! grep -q 'listening on 127.0.0.1:[0-9]' "$work/registry.log"; do
    kill -0 "$registry" || { cat "$work/registry.log" >&2; exit 2; }
    sleep 0.1
  done
  port=$(sed -n 's/.*listening on 127.0.0.1:\([0-9]*\).*/\1/p' "$work/registry.log" | head -1)
}
port=
! command -v docker-registry >/dev/null || start_registry

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
    printf 'skipped\t-\tneeds %s\n' "$(IFS=,; echo "${missing[*]}" | sed 's/,/, /g')" >"$out"
  else
    local apart=()
    [ "$(id -u)" -ne 0 ] || apart=(unshare -m)
    mkdir -p "$work/$name"
    (cd "$work/$name" && export program MSB_TEST_REPOSITORY="${port:+127.0.0.1:$port/$name}" &&
      "${apart[@]}" bash -euo pipefail -c "$*") >"$out" 2>"$out.err" || failure "$out.err" >"$out"
  fi
  awk -F '\t' -v title="$title" '
    $3 == "ok" { ++ok; next }
    $1 == "skipped" || $3 == "skipped" { ++skipped; next }
    { ++failed }
    END { printf "%s: %d ok, %d failed, %d skipped\n", title, ok, failed, skipped }' "$out" >&2
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
environment bindfs-direct 'FUSE (bindfs) without shared mappings' root bindfs /dev/fuse -- \
  "mkdir b m; bindfs -o direct_io b m; (cd m; $all); umount m"
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

# reflink MKFS...: prints whether this file system, which can share blocks, shares those of a raw
# snapshot with the disk of its sandbox, according to the extents.
reflink() {
  local name=reflink-$1
  command -v "$1" >/dev/null && [ "$(id -u)" -eq 0 ] || { echo "skipped: needs root and $1"; return; }
  mkdir "$work/$name"
  (cd "$work/$name" && export program && unshare -m bash -euo pipefail -c "
    truncate -s 512M disk.img; $* disk.img >/dev/null 2>&1; mkdir m; mount -o loop disk.img m
    echo made >&2; \"\$program\" make m/root; sync; filefrag -v m/root/home/snapshots/raw/upper* >extents
    if grep -q shared extents; then echo shared; else echo 'not shared'; fi") 2>"$results/$name.err" ||
    failure "$results/$name.err" | sed 's/\t-\t/: /'
}

# unexpected NAME: prints the results of an environment that are not as expected. In a home that
# cannot be written to, the operations that only read it succeed, and the others report kIO.
unexpected() {
  local writes=ok
  case $1 in readonly | user) writes='IO: .*' ;; esac
  [ -s "$results/$1" ] || echo "no result"
  awk -F '\t' -v writes="^($writes)\$" '
    $1 == "skipped" || $3 == "skipped" { next }
    $2 == "writes" ? $3 !~ writes : $3 != "ok" { print $1 ": " $3 }' "$results/$1"
}

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
      result=$(awk -F '\t' -v o="$operation" '$1 == o { print $3 }' "$results/$name")
      if [ "$result" = skipped ] || grep -q '^skipped' "$results/$name"; then
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

# errors NAME: prints the operations of an environment that failed, those with the same error
# together.
errors() {
  sed -E "s#$work/##g; s/-[0-9a-f]{16}\b/-HEX/g" "$results/$1" | awk -F '\t' '
    $3 != "ok" && $3 != "skipped" {
      if (!($3 in operations)) order[++count] = $3
      operations[$3] = operations[$3] (operations[$3] == "" ? "" : "; ") $1
    }
    END { for (i = 1; i <= count; ++i) print "* " operations[order[i]] ": " order[i] }'
}

notes() {
  local i name skipped
  echo
  echo "Blocks of a raw snapshot on XFS: $xfs; on Btrfs: $btrfs."
  skipped=$(awk -F '\t' '$3 == "skipped" { print $1 }' "$results/local" | paste -sd , | sed 's/,/, /g')
  [ -z "$skipped" ] || { echo; echo "Skipped, $skipped: needs the program docker-registry."; }
  for i in "${!names[@]}"; do
    name=${names[$i]}
    if grep -q '^skipped' "$results/$name"; then
      echo; echo "Skipped, ${titles[$i]}: $(cut -f3 "$results/$name")."
    elif [ -n "$(errors "$name")" ]; then
      echo; echo "${titles[$i]}:"; echo
      errors "$name"
    fi
  done
}

xfs=$(reflink mkfs.xfs -q -m reflink=1)
btrfs=$(reflink mkfs.btrfs -q)
status=0
for result in "$xfs" "$btrfs"; do
  case $result in
    shared | 'skipped: '*) ;;
    *) echo "unexpected: the blocks of a raw snapshot are $result" >&2; status=1 ;;
  esac
done
for i in "${!names[@]}"; do
  while read -r line; do
    echo "unexpected in ${titles[$i]}: $line" >&2
    status=1
  done < <(unexpected "${names[$i]}")
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
