#!/bin/sh
# Asks the real BuildKit about every Dockerfile here and writes what it says beside it.
#
#   PEERS=/work/shared/peers/peers SHARE=~/.cache/ferry-peers/host ./record.sh [NAME...]
#
# Engine 28.5.2, no network: the bases are `busybox` (PATH only) and `basic:1` (bases/basic.dockerfile).
set -eu
cd "$(dirname "$0")"
: "${PEERS:=/work/shared/peers/peers}" "${SHARE:=$HOME/.cache/ferry-peers/host}" "${NAME:=dockerfile-corpus}"
work="$SHARE/$NAME"
rm -rf "$work" && mkdir -p "$work/out" "$work/context" && cp -r . "$work/in"
cat >"$work/run.sh" <<'IN'
cd "$1/in"
shift
mkdir -p /tmp/b && cp /bin/busybox /tmp/b/
tar c -C /tmp/b . | docker import -c 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' - busybox:latest >/dev/null
docker build -q -t basic:1 - <bases/basic.dockerfile >/dev/null
for f in ${*:-*.dockerfile}; do
  name=${f%.dockerfile}
  args=$(sed 's/^/--build-arg /' "$name.args" 2>/dev/null || true)
  docker build --call=lint,format=json $args -f "$name.dockerfile" ../context >../out/$name.raw 2>../out/$name.err || true
  if [ -s ../out/$name.raw ]; then
    jq -c '
      def lines: [.location.ranges[]? | [.start.line, .end.line]];
      {warnings: [.warnings[]? | {rule: .ruleName, description, url, detail, lines: lines}],
       error: (if .buildError then {message: .buildError.message, lines: (.buildError | lines)} else null end)}
      | del(.. | nulls)' ../out/$name.raw >../out/$name.json
  else
    sed -n 's/^ERROR: //p' ../out/$name.err | head -1 | jq -cR '{warnings: [], error: {message: ., lines: []}}' >../out/$name.json
  fi
done
IN
"$PEERS" in "$NAME" sh "/host/$NAME/run.sh" "/host/$NAME" "$@"
cp "$work"/out/*.json .
rm -rf "$work"
