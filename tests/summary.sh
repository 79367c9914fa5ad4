# SPDX-License-Identifier: Apache-2.0
#
# To be sourced by scripts that build.

# msb_summary COMMAND...: runs it, and prints the last line of its output. If it fails, prints all of
# its output to the standard error instead.
msb_summary() {
  local output status=0
  output=$("$@" 2>&1) || status=$?
  if [ $status -ne 0 ]; then
    printf '%s\n' "$output" >&2
    return $status
  fi
  printf '%s\n' "${output##*$'\n'}"
}
