#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Fails if a source of the library other than src/base/descriptor.cc opens a descriptor, directly or
# through a function that opens one: see src/base/descriptor.h.
set -euo pipefail
cd "$(dirname "$0")/.."
calls='open|open64|openat|openat64|openat2|creat|fopen|fdopen|freopen|tmpfile|mkstemp|mkostemp|opendir'
calls+='|scandir|ftw|nftw|fts_open|dup|dup2|dup3|pipe|pipe2|socket|socketpair|accept|accept4'
calls+='|memfd_create|pidfd_open|eventfd|epoll_create|epoll_create1|signalfd|timerfd_create'
calls+='|inotify_init|inotify_init1|io_uring_setup|popen|shm_open|userfaultfd'
pattern="(^|[^A-Za-z0-9_.>:])(::)?($calls)\("
pattern+='|SYS_(open|openat|openat2|pidfd_open|memfd_create|dup)|F_DUPFD'
pattern+='|std::(basic_)?(if|of|f)stream|filesystem::(recursive_)?directory_iterator'
pattern+='|filesystem::(remove_all|copy|copy_file)\(|random_device|hardware_concurrency'
# A parameter named open, and the process that becomes a program and has its own standard streams.
allowed='src/artifact/store\.cc:[0-9]+:.* open\(trail\)|src/base/spawn\.cc:[0-9]+:.*dup2\(launch\.'
found=$(grep -rnE --include='*.cc' --include='*.h' "$pattern" src include |
  grep -vE '^src/base/(descriptor\.(cc|h)|core_count\.h):|^[^:]+:[0-9]+: *//' | grep -vE "$allowed" || true)
if [ -n "$found" ]; then
  echo "These may open a descriptor from 0 to 2; use src/base/descriptor.h:" >&2
  echo "$found" >&2
  exit 1
fi
