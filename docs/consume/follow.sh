#!/bin/sh
# Follows Dunlin's feed and prints each event as a line of JSON, with curl and jq.
#
#   DUNLIN_URL=https://collector.example.net:9738 DUNLIN_TOKEN_FILE=token DUNLIN_CA=ca.pem \
#       follow.sh CURSOR_FILE [KIND ...]
#
# KIND is alert.* unless it is given. Put what you do with an event in the place of `handle`.
#
# Nothing is missed: the cursor is kept once an event is handled, and a start goes on behind it. Whoever is killed in between
# meets that one event again, under the same cursor: use it as a key where twice would be once too often.
set -eu

handle() {
    printf '%s\n' "$1"
}

if [ $# -lt 1 ] || [ -z "${DUNLIN_URL:-}" ] || [ -z "${DUNLIN_TOKEN_FILE:-}" ]; then
    sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
file=$1
shift
[ $# -gt 0 ] || set -- 'alert.*'

work=$(mktemp -d)
asking=
trap 'kill $asking 2>/dev/null || true; rm -rf "$work"' EXIT
trap 'exit 143' TERM
trap 'exit 130' INT
# In a file, so that no list of processes shows the token.
(umask 077 && printf 'Authorization: Bearer %s\n' "$(cat "$DUNLIN_TOKEN_FILE")" >"$work/headers")

# Whole or not at all: a new file takes the place of the old one.
keep() {
    printf '%s\n' "$1" >"$file.new"
    mv "$file.new" "$file"
}

# ask CURSOR KIND...: the answer in $work/answer, and its status, which is 000 when there was none or a part of one.
ask() {
    after=$1
    shift
    for kind in "$@"; do
        set -- "$@" --data-urlencode "kind=$kind"
        shift
    done
    [ -z "$after" ] || set -- "$@" --data-urlencode "after=$after"
    # In the background: a signal is heard at once, and not when the answer is there.
    curl --silent --show-error --max-time 60 ${DUNLIN_CA:+--cacert "$DUNLIN_CA"} --header "@$work/headers" \
        --output "$work/answer" --write-out '%{http_code}' --get --data-urlencode 'wait=30s' "$@" \
        "${DUNLIN_URL%/}/api/v1/events" >"$work/status" &
    asking=$!
    wait "$asking" || echo 000 >"$work/status"
    asking=
    status=$(cat "$work/status")
}

cursor=
[ ! -f "$file" ] || cursor=$(cat "$file")
pause=1
while :; do
    ask "$cursor" "$@"
    case $status in
        200)
            pause=1
            next=$(jq -r .next "$work/answer")
            # A tab within an event is written as \t, so the first one ends the cursor.
            jq -r '.items[] | "\(.cursor)\t\(tojson)"' "$work/answer" >"$work/events"
            while IFS='	' read -r at event; do
                handle "$event"
                keep "$at"
            done <"$work/events"
            # Behind what other kinds there were as well.
            if [ "$next" != "$cursor" ]; then
                cursor=$next
                keep "$cursor"
            fi
            ;;
        410)
            earliest=$(jq -r .earliest "$work/answer")
            echo "what lies between $cursor and $earliest is lost" >&2
            cursor=$earliest
            keep "$cursor"
            ;;
        429 | 000 | 5??)
            # No connection, a restart, an answer that was cut off: it will be back.
            echo "again in $pause s: status $status" >&2
            sleep "$pause"
            pause=$((pause * 2 > 30 ? 30 : pause * 2))
            ;;
        *)
            # What no second try makes right: a token, a name.
            echo "refused: $(jq -r '.detail // empty' "$work/answer")" >&2
            exit 1
            ;;
    esac
done
