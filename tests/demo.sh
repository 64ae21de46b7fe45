#!/usr/bin/env bash
# demo.sh BINARY [OPTIONS OF SERVE]: plays a short story with two devices, then keeps serving what they wrote.
# Everything that it does, it does with the public command line, and prints.
set -euo pipefail

binary=$(realpath "$1")
serve_options=("${@:2}")
[ ${#serve_options[@]} -gt 0 ] || serve_options=(--listen 127.0.0.1:0)

folder=$(mktemp -d "${TMPDIR:-/tmp}/syncline-demo.XXXXXX")
server=

# Stops the server that was started here, and waits for it.
stop() {
    trap - EXIT INT TERM
    if [ -n "$server" ]; then
        kill -TERM "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
    fi
    rm -rf "$folder"
    printf '\n%s\n' "stopped, and $folder is gone"
}
trap stop EXIT
trap 'exit 0' INT TERM

# ---- output

bold='' dim='' plain=''
if [ -t 1 ]; then
    bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'
fi

chapter() {
    printf '\n%s== %s%s\n' "$bold" "$1" "$plain"
}

why() {
    printf '\n%s# %s%s\n' "$dim" "$1" "$plain"
}

# quoted WORD...: as one would type it.
quoted() {
    local word quote="'"
    for word in "$@"; do
        if [[ $word =~ ^[A-Za-z0-9_./:=-]+$ ]]; then
            printf ' %s' "$word"
        else
            printf " '%s'" "${word//$quote/$quote\\$quote$quote}"
        fi
    done
}

# device NAME COMMAND...: runs a command on a device, and shows both.
device() {
    local words=(device --db "$1.db" "${@:2}") code=0
    printf '%s$ syncline%s%s\n' "$bold" "$(quoted "${words[@]}")" "$plain"
    "$binary" "${words[@]}" | sed 's/^/  /' || code=$?
    case $code in
        0) ;;
        3) printf '  %s(exit code 3: a question waits for an answer)%s\n' "$dim" "$plain" ;;
        *) return "$code" ;;
    esac
}

# ---- the server

cd "$folder"
mkfifo first-line
"$binary" serve --dev --data data "${serve_options[@]}" >first-line 2>server.log &
server=$!
exec 3<first-line
if ! read -r -t 30 SYNCLINE_SERVER <&3; then
    cat server.log >&2
    exit 1
fi
SYNCLINE_TOKEN=$("$binary" token --user ada --data data)
export SYNCLINE_SERVER SYNCLINE_TOKEN

# ---- the story

chapter "Ada has a phone and a tablet; both are signed in to $SYNCLINE_SERVER"

why "The phone writes a shopping list, a vote and two notes. No server is needed for that."
device phone put shopping milk '{"amount":1,"bought":false}'
why "Votes are counters: what several devices add at once is added up."
device phone policy votes counter
device phone put votes friday 1
why "Where two devices write the same headline, the server's wins; where they name the trip, Ada wants to be asked."
device phone policy notes keep_remote
device phone policy notes ask --prefix trip
device phone put notes headline '"Weekend"'
device phone put notes trip '"Hills"'

why "Sync pushes all of it, and a new tablet pulls it."
device phone sync
device tablet sync
device tablet policy votes counter
device tablet policy notes keep_remote
device tablet policy notes ask --prefix trip
device tablet get shopping milk

chapter "Both go offline and change the same things"

why "On the phone: two bottles, two more votes, another headline, another trip."
device phone put shopping milk '{"amount":2,"bought":false}'
device phone put votes friday 3
device phone put notes headline '"Long weekend"'
device phone put notes trip '"Mountains"'
why "On the tablet: the milk is bought, one more vote, and it differs about the rest."
device tablet put shopping milk '{"amount":1,"bought":true}'
device tablet put votes friday 2
device tablet put notes headline '"Short weekend"'
device tablet put notes trip '"Sea"'

chapter "They come back, the phone first"

device phone sync
device tablet sync

why "Each changed another field of the milk, so both changes hold."
device tablet get shopping milk
why "1 vote, 2 more on the phone, 1 more on the tablet."
device tablet get votes friday
why "The phone's headline was on the server first. What the tablet had is not lost: its conflict log has it."
device tablet get notes headline
device tablet conflicts notes
why "About the trip the tablet waits for an answer, and still shows its own. Nothing else was held up."
device tablet resolve notes
device tablet resolve notes trip '"First the mountains, then the sea"'
why "With the answer, both have the same."
device tablet sync
device phone sync
for dataset in shopping votes notes; do
    device phone export "$dataset"
    cmp <("$binary" device --db phone.db export "$dataset") <("$binary" device --db tablet.db export "$dataset")
done
why "The exports of the tablet are the same, byte for byte."

# ---- what to try

chapter "Now it is yours: the server keeps running until Ctrl-C"
cat <<TEXT

In another terminal:

  cd $folder
  syncline() { $binary "\$@"; }
  export SYNCLINE_SERVER=$SYNCLINE_SERVER
  export SYNCLINE_TOKEN=\$(syncline token --user ada --data data)

  syncline device --db phone.db status
  syncline device --db tablet.db restore notes 1     # the headline that had lost
  syncline device --db tablet.db sync
  syncline device --db phone.db sync
  syncline device --db phone.db get notes headline
  syncline device --db laptop.db sync                # a third device
  syncline device --help                             # all commands, policies and exit codes

The log of the server is in $folder/server.log.
TEXT
wait "$server"
