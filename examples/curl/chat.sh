#!/usr/bin/env bash
# Five steps with Parley through curl: Connect with JSON. Each prints a line of JSON: what was seen.
set -euo pipefail

service=${PARLEY_URL:-http://localhost:8080}/parley.chat.v1.ChatService
message='Grüße aus Köln 🦜'
# More turns than a service lets one user begin, which is 100 in an hour by default.
many_turns=200
# A call without a deadline can wait for ever.
timeout_ms=60000

random() {
  od -An -N16 -tx1 /dev/urandom | tr -d ' \n'
}

# request FIELDS: a request's JSON, with more fields beside message and user.
request() {
  jq -cn --arg message "$message" --arg userId "$user" "{message: \$message, userId: \$userId} + $1"
}

# unary RPC JSON: the reply's JSON, of an error too.
unary() {
  curl -sS "$service/$1" -H 'content-type: application/json' -H "connect-timeout-ms: $timeout_ms" -d "$2"
}

# streamed RPC JSON: the events' JSON, a line each as they come. In Connect's streams each message has a byte of flags and
# four of length before it; the last one, with flag 2, is the end of the stream and has the error, if any.
streamed() {
  envelope "$2" |
    curl -sSN "$service/$1" -H 'content-type: application/connect+json' -H "connect-timeout-ms: $timeout_ms" --data-binary @- |
    while read -r flags a b c d < <(bytes 5 | od -An -tu1) && [ -n "${flags:-}" ]; do
      bytes $((a << 24 | b << 16 | c << 8 | d))
      echo
    done
}

envelope() {
  # Bytes are counted, not characters.
  local LC_ALL=C hex
  printf -v hex '%08x' "${#1}"
  printf "\\x00\\x${hex:0:2}\\x${hex:2:2}\\x${hex:4:2}\\x${hex:6:2}%s" "$1"
}

# bytes N: so many of the input, and none beyond them.
bytes() {
  dd bs=1 count="$1" 2>/dev/null
}

# tell STEP JSON
tell() {
  jq -cn --arg step "$1" --argjson saw "$2" '{client: "curl", $step, $saw}'
}

chat() {
  local reply
  reply=$(unary Chat "$(request '{}')")
  tell chat "$(jq '{
    response, finish_reason: .finishReason, total_tokens: .tokenUsage.totalTokens, cost_micro_usd: (.costMicroUsd | tonumber)
  }' <<<"$reply")"
}

# What events have in common to tell of them. Those that are in no log have no number.
numbered='[.[] | select(.sequence)] | map(.sequence |= tonumber)'
told='{
  without_gap: (map(.sequence) == [range(.[0].sequence; .[-1].sequence + 1)]),
  text: (map(.textDelta.text // "") | add),
  finish_reason: .[-1].turnCompleted.finishReason
}'

stream() {
  tell stream "$(streamed StreamChat "$(request '{}')" | jq -s "$numbered"'
    | {kinds: (map(del(.sequence) | keys[]) | reduce .[] as $kind ([]; if index($kind) then . else . + [$kind] end)
        | map(gsub("(?<letter>[A-Z])"; "_" + (.letter | ascii_downcase))))} + '"$told")"
}

drop_and_resume() {
  local events='' line turn dropped_after
  while read -r line; do
    events+=$line
    # Whoever reads no more drops the call.
    [[ $line != *textDelta* ]] || break
  done < <(streamed StreamChat "$(request '{}')" 2>/dev/null)
  turn=$(jq -rs '.[0].turnStarted.turnId' <<<"$events")
  dropped_after=$(jq -rs "$numbered | .[-1].sequence" <<<"$events")

  # The turn goes on without its call. Any replica, and any time later, would do as well.
  events+=$(streamed ResumeTurn "{\"turnId\": \"$turn\", \"afterSequence\": \"$dropped_after\"}")
  tell resume "$(jq -s --argjson dropped_after "$dropped_after" \
    "$numbered"' | {$dropped_after, last_sequence: .[-1].sequence} + '"$told" <<<"$events")"
}

retry() {
  local again first request
  request=$(request "{idempotencyKey: \"$(random)\"}")
  first=$(unary Chat "$request")
  # As if the first reply had been lost: no model is called again, and nothing is paid for again.
  again=$(unary Chat "$request")
  tell retry "$(jq --argjson first "$first" '{same_turn: (.turnId == $first.turnId), response}' <<<"$again")"
}

refusal() {
  local admitted reply
  for ((admitted = 0; admitted < many_turns; admitted++)); do
    reply=$(unary Chat "$(request '{}')")
    jq -e .code <<<"$reply" >/dev/null || continue
    # Each detail has its protobuf bytes in "value", for programs with generated types, and is readable in "debug".
    tell refusal "$(jq --argjson admitted "$admitted" '
      (.details | map({(.type): .debug}) | add) as $details | {
        code: (.code | ascii_upcase),
        reason: $details["google.rpc.ErrorInfo"].reason,
        $admitted,
        quota: ($details["google.rpc.QuotaFailure"].violations | map(.description)),
        retry_after_s: ($details["google.rpc.RetryInfo"].retryDelay | rtrimstr("s") | tonumber | floor)
      }' <<<"$reply")"
    return
  done
  echo 'was never refused' >&2
  exit 1
}

user=example-$(random)
chat
stream
drop_and_resume
retry
refusal
