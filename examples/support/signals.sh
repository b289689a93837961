# SPDX-FileCopyrightText: 2026 The magpie authors
# SPDX-License-Identifier: Apache-2.0
#
# For the test.sh of the programs with a command line.

# handles PID NUMBER: whether the process has a handler for that signal.
handles() {
  local mask
  mask=$(sed -n 's/^SigCgt:[[:space:]]*//p' "/proc/$1/status" 2>/dev/null)
  [[ -n $mask ]] && (((16#$mask >> ($2 - 1)) & 1))
}

# end_by_signal SIGNAL SECONDS COMMAND...: the command's exit code. The signal comes so long after the command has set its
# handlers for SIGINT and SIGTERM, however long it takes to get there.
end_by_signal() {
  local signal=$1 pause=$2 program
  shift 2
  "$@" &
  program=$!
  until handles $program 2 && handles $program 15; do
    grep -q '^State:[[:space:]]*Z' "/proc/$program/status" 2>/dev/null && break
    sleep 0.02
  done
  sleep "$pause"
  kill -s "$signal" $program
  wait $program
}
