#!/bin/sh
# Builds words.dockerfile with the real BuildKit and writes the configuration of the image beside it.
#
#   PEERS=/work/shared/peers/peers SHARE=~/.cache/ferry-peers/host NAME=… ./record.sh     (after ../corpus/record.sh: busybox)
set -eu
cd "$(dirname "$0")"
: "${PEERS:=/work/shared/peers/peers}" "${SHARE:=$HOME/.cache/ferry-peers/host}" "${NAME:=dockerfile-corpus}"
mkdir -p "$SHARE/$NAME-words"
cp words.dockerfile "$SHARE/$NAME-words/Dockerfile"
"$PEERS" in "$NAME" sh -c "docker build -q -t words /host/$NAME-words >/dev/null && docker image inspect words" |
  jq '.[0].Config' >words.json
rm -rf "$SHARE/$NAME-words"
