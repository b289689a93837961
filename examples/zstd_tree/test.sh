#!/usr/bin/env bash
# SPDX-FileCopyrightText: 2026 The magpie authors
# SPDX-License-Identifier: Apache-2.0
#
# test.sh ZSTD_TREE: packs trees and compares what the zstd program makes of the result with the original; then failing files and
# devices, exit codes, --timeout and Ctrl-C.

set -u
source "$(dirname "$0")/../support/signals.sh"
export LC_ALL=C
work=$(mktemp -d) || exit 1
trap 'chmod -R u+rwx "$work"; rm -rf "$work"' EXIT
cp "$1" "$work/zstd_tree" || exit 1  # where the unprivileged user of one test may run it
zstd_tree=$work/zstd_tree
failures=0

fail() {
  echo "FAIL: $*"
  failures=$((failures + 1))
}

expect() {  # expect "what" GOT WANTED
  [[ $2 == "$3" ]] || fail "$1: got '$2', not '$3'"
}

# Every file of the original is in the copy, and nothing else.
compare() {  # compare "what" SOURCE TARGET
  (cd "$2" && find . -type f -print0 | sort -z) >"$work/wanted"
  (cd "$3" && find . -type f -print0 | sed -z 's/\.zst$//' | sort -z) >"$work/got"
  cmp "$work/wanted" "$work/got" || fail "$1: other files than in the original"
  rm -rf "$work/unpacked"
  [[ ! -s $work/wanted ]] || (cd "$3" && zstd -dqr --output-dir-mirror "$work/unpacked" .) || fail "$1: not what zstd reads"
  (cd "$2" && xargs -0 -r sha256sum -- <"$work/wanted") >"$work/sums"
  (cd "$work/unpacked" 2>/dev/null && xargs -0 -r sha256sum -- <"$work/wanted") | cmp "$work/sums" || fail "$1: files that differ"
}

pack() {  # pack "what" SOURCE OPTION...
  local what=$1 source=$2
  shift 2
  rm -rf "$work/out"
  "$zstd_tree" "$@" "$source" "$work/out" >"$work/stdout" 2>"$work/stderr"
  expect "$what: exit code" $? 0
  expect "$what: stderr" "$(cat "$work/stderr")" ""
  compare "$what" "$source" "$work/out"
}

# ---- edge cases -----------------------------------------------------------------------------------------------------

tree=$work/tree
mkdir -p "$tree/sub/empty directory" "$tree/a"$'\n'"b" "$tree/sub.zst"
piece=1048576
: >"$tree/empty"
printf 'one line\n' >"$tree/name with spaces"
printf 'x' >"$tree/a"$'\n'"b/c"$'\n'"d"
printf 'a dash' >"$tree/-n"
printf 'packed already' >"$tree/sub.zst/a.zst"
for size in $((piece - 1)) $piece $((piece + 1)) $((3 * piece)); do head -c $size /dev/urandom >"$tree/sub/of $size"; done
yes 'The quick brown fox jumps over the lazy dog.' | head -c 4000003 >"$tree/big"
for ((i = 0; i < 200; ++i)); do echo "small $i" >"$tree/sub/small $i"; done
ln -s big "$tree/link"
ln -s . "$tree/sub/loop"
mkfifo "$tree/pipe"

pack "edge cases" "$tree"
expect "what it says" "$(grep -o '^[0-9]* files' "$work/stdout")" "$(find "$tree" -type f -printf x | wc -c) files"
pack "a slash at the end" "$tree/"
for threads in 1 7; do pack "$threads threads" "$tree" --threads $threads --readers 3 --writers 1; done
pack "level 1" "$tree" --level 1
"$zstd_tree" "$tree" "$work/out" >/dev/null || fail "over an older copy"
compare "over an older copy" "$tree" "$work/out"
mkdir "$work/nothing"
pack "an empty directory" "$work/nothing"

# ---- a part of a real tree ------------------------------------------------------------------------------------------

# With a sanitizer, which says nothing of what is written, a smaller part.
files=400
if grep -qE '__(asan|tsan)_init' "$zstd_tree"; then files=75; fi
mkdir -p "$work/real"
find /usr/share/doc /usr/include -type f -readable -size -500k -print0 2>/dev/null | head -z -n $files | xargs -0 -r cp --parents -t "$work/real"
pack "a real tree" "$work/real"

# ---- failures -------------------------------------------------------------------------------------------------------

# Each is tried eight times: at 0.2 one in 400,000 would fail each time.
pack "a flaky device" "$tree" --flaky 0.1
grep -q ' [1-9][0-9]* retries' "$work/stdout" || fail "nothing was tried again: $(cat "$work/stdout")"
rm -rf "$work/out"
mkdir "$work/few"
for ((i = 0; i < 5; ++i)); do echo $i >"$work/few/$i"; done
"$zstd_tree" --flaky 1 "$work/few" "$work/out" >"$work/stdout" 2>"$work/stderr"
expect "a broken device: exit code" $? 1
expect "a broken device: files" "$(find "$work/out" -type f | wc -l)" 0
expect "a broken device: reports" "$(grep -c ': Input/output error$' "$work/stderr")" 5

chmod 755 "$work" "$zstd_tree"
mkdir -m 777 "$work/private" "$work/private/from" "$work/private/to"
echo readable >"$work/private/from/open"
echo secret >"$work/private/from/closed"
chmod 000 "$work/private/from/closed"
as_nobody=()
if [[ $EUID == 0 ]]; then as_nobody=(setpriv --reuid=65534 --clear-groups); fi
"${as_nobody[@]}" "$zstd_tree" "$work/private/from" "$work/private/to" >/dev/null 2>"$work/stderr"
expect "unreadable: exit code" $? 1
expect "unreadable: stderr" "$(cat "$work/stderr")" "zstd_tree: $work/private/from/closed: Permission denied"
expect "unreadable: what is there" "$(ls "$work/private/to")" "open.zst"

# ---- the command line -----------------------------------------------------------------------------------------------

wrong() {  # wrong "sentence" ARGUMENT...
  local sentence=$1 got
  shift
  got=$("$zstd_tree" "$@" 2>&1)
  expect "$*: exit code" $? 2
  [[ $got == *"$sentence"* ]] || fail "$*: '$got' does not say '$sentence'"
}
wrong "SOURCE and TARGET are needed" "$tree"
wrong "no option '--foo'" --foo "$tree" "$work/x"
wrong "--level needs a number from 1 to 19" --level 20 "$tree" "$work/x"
wrong "Not a directory" "$tree/big" "$work/x"
wrong "TARGET must not lie in SOURCE" "$tree" "$tree/sub/copy"
rm -rf "$tree/sub/copy"
"$zstd_tree" --help | grep -q '^usage: zstd_tree' || fail "--help"

# ---- timeout and signals: more than can be packed in that time ---------------------------------------------------------

mkdir -p "$work/long/0"
for ((i = 0; i < 32; ++i)); do ln "$tree/big" "$work/long/0/$i"; done
for ((i = 1; i < 64; ++i)); do cp -rl "$work/long/0" "$work/long/$i"; done

ends() {  # ends CODE "text on stderr" COMMAND...
  local code=$1 text=$2
  shift 2
  rm -rf "$work/out"
  "$@" "$work/long" "$work/out" >"$work/stdout" 2>"$work/stderr"
  expect "$text: exit code" $? "$code"
  grep -q "^zstd_tree: $text after [0-9]* files, " "$work/stderr" || fail "$text: $(cat "$work/stderr")"
  expect "$text: half a file" "$(find "$work/out" -name '*.part' | wc -l)" 0
  local file
  while IFS= read -r -d '' file; do zstd -tq "$file" || fail "$text: $file is not whole"; done < <(find "$work/out" -type f -print0 | head -z -n 5)
}
ends 124 "timed out" timeout --preserve-status -k 1 60 "$zstd_tree" --level 12 --timeout 0.5
# ThreadSanitizer keeps a signal back while the thread that got it waits in a bare system call, as a std::atomic's wait does.
if ! grep -q __tsan_init "$zstd_tree"; then
  ends 130 "interrupted" end_by_signal INT 0.5 "$zstd_tree" --level 12
  ends 143 "interrupted" end_by_signal TERM 0.5 "$zstd_tree" --level 12 --flaky 0.1
fi

((failures == 0)) && echo "zstd_tree: all as it should be"
exit $((failures != 0))
