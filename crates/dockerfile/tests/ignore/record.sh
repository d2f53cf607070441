#!/bin/sh
# Asks the real BuildKit which of the paths in paths.txt it sends, for each set of patterns in sets.txt (sets are separated by
# empty lines), and writes them, one line a set, to sent.txt.
#
#   PEERS=/work/shared/peers/peers SHARE=~/.cache/ferry-peers/host NAME=… ./record.sh
set -eu
cd "$(dirname "$0")"
: "${PEERS:=/work/shared/peers/peers}" "${SHARE:=$HOME/.cache/ferry-peers/host}" "${NAME:=dockerfile-corpus}"
work="$SHARE/$NAME-ignore"
rm -rf "$work" && mkdir -p "$work/context" "$work/sets"
while read -r path; do
  mkdir -p "$work/context/$(dirname "$path")" && : >"$work/context/$path"
done <paths.txt
awk -v RS= -v dir="$work/sets" '{ file = sprintf("%s/%03d.dockerfile.dockerignore", dir, NR); print > file; close(file) }' sets.txt
cat >"$work/run.sh" <<'IN'
cd "$1"
for set in sets/*.dockerignore; do
  printf 'FROM scratch\nCOPY . /\n' >"${set%.dockerignore}"
  docker build -q -t ignored -f "${set%.dockerignore}" context >/dev/null 2>err || { echo "ERROR"; continue; }
  docker create --name ignored ignored x >/dev/null
  docker export ignored | tar t | grep -v '/$' | sort >all
  docker rm ignored >/dev/null
  (cd context && find . -type f | sed 's,^\./,,' | sort) | comm -12 - all | tr '\n' ' '
  echo
done
IN
"$PEERS" in "$NAME" sh "/host/$NAME-ignore/run.sh" "/host/$NAME-ignore" >sent.txt
rm -rf "$work"
