#!/usr/bin/env bash
# SPDX-FileCopyrightText: 2026 The magpie authors
# SPDX-License-Identifier: Apache-2.0
#
# test.sh WORDCOUNT: compares the program with grep, sort and uniq on a tree full of edge cases and on a part of a real one;
# then its exit codes, --timeout, Ctrl-C, and what a terminal sees.

set -u
source "$(dirname "$0")/../support/signals.sh"
export LC_ALL=C
work=$(mktemp -d) || exit 1
trap 'chmod -R u+rwx "$work"; rm -rf "$work"' EXIT
cp "$1" "$work/wordcount" || exit 1  # where the unprivileged user of one test may run it
wordcount=$work/wordcount
failures=0

fail() {
  echo "FAIL: $*"
  failures=$((failures + 1))
}

expect() {  # expect "what" GOT WANTED
  [[ $2 == "$3" ]] || fail "$1: got '$2', not '$3'"
}

# Those of the named files that have no zero byte where a binary file is known by it.
texts() {
  python3 -c '
import sys
for name in sys.stdin.buffer.read().split(b"\0")[:-1]:
    with open(name, "rb") as file:
        if b"\0" not in file.read(8192):
            sys.stdout.buffer.write(name + b"\0")'
}

# The table of every word below $1, as the shell's tools make it: text files only, links not followed.
reference() {
  find "$1" -type f -readable -print0 | texts | xargs -0 -r grep -ohaE '[A-Za-z0-9_]+' -- | sort | uniq -c | sort -k1,1nr -k2,2
}

compare() {  # compare "what" DIR OPTION...
  local what=$1 directory=$2
  shift 2
  "$wordcount" "$@" --top 10000000 "$directory" >"$work/out" 2>"$work/err"
  expect "$what: exit code" $? 0
  tail -n +2 "$work/out" >"$work/table"
  cmp "$work/table" "$work/reference" || fail "$what: the table differs: $(diff "$work/table" "$work/reference" | cut -c 1-100 | head -5)"
  expect "$what: totals" "$(head -1 "$work/out" | cut -d ' ' -f 1-4)" \
    "$(awk '{ words += $1 } END { printf "%d words, %d different,", words, NR }' "$work/reference")"
}

# ---- edge cases -----------------------------------------------------------------------------------------------------

tree=$work/tree
mkdir -p "$tree/sub/empty directory" "$tree/a"$'\n'"b"
piece=1048576
: >"$tree/empty"
printf 'no newline at the end' >"$tree/end"
printf 'one_word' >"$tree/one"
printf ' \t\n--\n' >"$tree/no words"
printf 'CR and LF\r\nna\303\257ve \377\376 caf\351s x-y a.b_c 0x1F\n' >"$tree/sub/bytes"
printf 'with spaces\n' >"$tree/sub/name with spaces"
printf 'with a newline\n' >"$tree/a"$'\n'"b/c"$'\n'"d"
printf 'with a dash\n' >"$tree/-n"
printf 'hidden\n' >"$tree/.hidden"
printf 'binary \0 words that nobody counts\n' >"$tree/binary"
{ head -c 8191 /dev/zero | tr '\0' ' '; printf '\0still binary\n'; } >"$tree/binary at the edge"
{ head -c 8192 /dev/zero | tr '\0' ' '; printf '\0text\0with\0zeros\n'; } >"$tree/text with zeros"
yes 'The quick brown fox jumps over the lazy dog, 42 times;' | head -c 3000003 >"$tree/big"
head -c $((3 * piece + 17)) /dev/zero | tr '\0' 'w' >"$tree/one huge word"
for offset in -2 -1 0 1 2; do
  { head -c $((piece + offset)) /dev/zero | tr '\0' ' '; printf 'border other'; } >"$tree/word at $offset"
  { head -c $((piece + offset)) /dev/zero | tr '\0' 'x'; printf ' after'; } >"$tree/word up to $offset"
  { head -c $((2 * piece + offset - 3)) /dev/zero | tr '\0' '.'; printf 'across'; } >"$tree/word across $offset"
done
ln -s .. "$tree/sub/loop"
ln -s end "$tree/link to a file"
ln -s nowhere "$tree/dangling"
mkfifo "$tree/pipe"

reference "$tree" >"$work/reference"
compare "edge cases" "$tree"
compare "one thread, one file open" "$tree" --threads 1 --open 1
compare "seven threads, three files open" "$tree" --threads 7 --open 3
expect "top 20" "$("$wordcount" "$tree" | tail -n +2)" "$(head -20 "$work/reference")"
expect "skipped" "$("$wordcount" --top 0 "$tree" | grep -o '(.*)')" "(skipped: 2 binary, 0 unreadable)"
ln -s tree "$work/link"
compare "a link to the directory" "$work/link"
reference "$tree/big" >"$work/reference"
compare "a single file" "$tree/big"
reference "$tree/sub/empty directory" >"$work/reference"
compare "an empty directory" "$tree/sub/empty directory"

# ---- a part of a real tree ------------------------------------------------------------------------------------------

# With a sanitizer, which says nothing of what is counted, a smaller part.
files=300
if grep -qE '__(asan|tsan)_init' "$wordcount"; then files=50; fi
for real in /usr/share/doc /usr/include; do
  [[ -d $real ]] || continue
  mkdir -p "$work/real$real"
  find "$real" -type f -readable -size -500k -print0 2>/dev/null | head -z -n $files |
    xargs -0 -r cp --parents -t "$work/real"
  reference "$work/real$real" >"$work/reference"
  compare "$real" "$work/real$real"
done

# ---- what cannot be read --------------------------------------------------------------------------------------------

chmod 755 "$work" "$wordcount"
mkdir "$work/private" "$work/private/closed"
echo 'readable words' >"$work/private/open"
echo secret | tee "$work/private/file" >"$work/private/closed/file"
chmod 000 "$work/private/closed" "$work/private/file"
as_nobody=()
if [[ $EUID == 0 ]]; then as_nobody=(setpriv --reuid=65534 --clear-groups); fi
got=$("${as_nobody[@]}" "$wordcount" "$work/private" 2>"$work/err")
expect "unreadable: exit code" $? 1
expect "unreadable: result" "$got" "$(printf '2 words, 2 different, in 1 files (skipped: 0 binary, 2 unreadable)\n      1 readable\n      1 words')"
expect "unreadable: stderr" "$(sort "$work/err")" \
  "$(printf 'wordcount: %s: Permission denied\n' "$work/private/closed" "$work/private/file")"

# ---- the command line -----------------------------------------------------------------------------------------------

wrong() {  # wrong "sentence" ARGUMENT...
  local sentence=$1 got
  shift
  got=$("$wordcount" "$@" 2>&1)
  expect "$*: exit code" $? 2
  [[ $got == *"$sentence"* ]] || fail "$*: '$got' does not say '$sentence'"
}
wrong "one DIR is needed"
wrong "one DIR is needed" "$tree" "$tree"
wrong "no option '--foo'" --foo "$tree"
wrong "--open needs a number from 1 to" --open 0 "$tree"
wrong "not 'many'" --threads many "$tree"
wrong "not '5000'" --threads 5000 "$tree"
wrong "not '2x'" --timeout 2x "$tree"
wrong "not 'nan'" --timeout nan "$tree"
wrong "not ''" --top
wrong "/nowhere: No such file or directory" /nowhere
"$wordcount" --help | grep -q '^usage: wordcount' || fail "--help"
"$wordcount" "$tree" >/dev/full 2>/dev/null
expect "a full disk: exit code" $? 2

# ---- timeout and signals: more than can be counted in that time -----------------------------------------------------

mkdir -p "$work/long/0"
for ((i = 0; i < 32; ++i)); do ln "$tree/big" "$work/long/0/$i"; done
for ((i = 1; i < 64; ++i)); do cp -rl "$work/long/0" "$work/long/$i"; done

ends() {  # ends CODE "text on stderr" COMMAND...
  local code=$1 text=$2
  shift 2
  "$@" >"$work/out" 2>"$work/err"
  expect "$text: exit code" $? "$code"
  grep -q "^wordcount: $text after [0-9]* files, [0-9]* MB, [0-9]* words$" "$work/err" || fail "$text: $(cat "$work/err")"
  [[ -s $work/out ]] && fail "$text: a result on stdout"
}
ends 124 "timed out" timeout --preserve-status -k 1 60 "$wordcount" --timeout 0.3 "$work/long"
ends 124 "timed out" timeout --preserve-status -k 1 60 "$wordcount" --timeout 0 "$work/long"
# ThreadSanitizer keeps a signal back while the thread that got it waits in a bare system call, as a std::atomic's wait does.
if ! grep -q __tsan_init "$wordcount"; then
  ends 130 "interrupted" end_by_signal INT 0.3 "$wordcount" "$work/long"
  ends 143 "interrupted" end_by_signal TERM 0.3 "$wordcount" --open 1 "$work/long"
fi

# ---- the progress line ----------------------------------------------------------------------------------------------

if command -v script >/dev/null; then
  # Where threads stand still, the time may be over before the line is written.
  for time in 0.5 1 2 3; do
    seen=$(script -qec "'$wordcount' --timeout $time '$work/long'" /dev/null </dev/null)
    [[ $seen == *$'\r'*" files, "* ]] && break
  done
  [[ $seen == *$'\r'*" files, "*$'\e[K'*"timed out"* ]] || fail "no progress line on a terminal: $seen"
fi
"$wordcount" --timeout 0.5 "$work/long" 2>&1 | grep -q $'\r' && fail "a progress line although stderr is no terminal"

((failures == 0)) && echo "wordcount: all as it should be"
exit $((failures != 0))
