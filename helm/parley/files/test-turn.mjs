// Run by the pod of `helm test`: a streamed turn on each track that serves, over Connect, with nothing but Node.
const { BASE_URL, TRACKS, PREVIEW_HEADER, PREVIEW_VALUE, VERSION_HEADER, API_KEY, USER_ID } = process.env;

/** The version of each track, where a session goes back to its own by VERSION_HEADER. */
const VERSIONS = { stable: process.env.STABLE_VERSION, canary: process.env.CANARY_VERSION };

/** A weight may send a call to the other track; then it is tried again. */
const TRIES = 30;

for (const track of TRACKS.split(",")) {
  let seen = "";
  for (let tries = 0; tries < TRIES && seen !== track; tries++) seen = await streamedTurn(track);
  if (seen !== track) throw new Error(`${TRIES} turns, and none of them ran on ${track}`);
  console.log(`ok: a streamed turn ran on ${track}`);
}

/** Runs one turn and returns the track that it ran on. */
async function streamedTurn(track) {
  const message = JSON.stringify({ message: "Say ok.", ...(USER_ID && { userId: USER_ID }) });
  const body = Buffer.alloc(5 + Buffer.byteLength(message));
  body.writeUInt32BE(Buffer.byteLength(message), 1);
  body.write(message, 5);
  const response = await fetch(`${BASE_URL}/parley.chat.v1.ChatService/StreamChat`, {
    method: "POST",
    signal: AbortSignal.timeout(120_000),
    headers: {
      "content-type": "application/connect+json",
      ...(API_KEY && { authorization: `Bearer ${API_KEY}` }),
      ...(VERSION_HEADER && { [VERSION_HEADER]: VERSIONS[track] }),
      ...(track === "canary" && PREVIEW_HEADER && { [PREVIEW_HEADER]: PREVIEW_VALUE }),
    },
    body,
  });
  const bytes = Buffer.from(await response.arrayBuffer());
  if (!response.ok) throw new Error(`HTTP ${response.status}`);
  const events = [...envelopes(bytes)];
  const error = events.at(-1)?.error;
  if (error) {
    const hint = error.code === "unauthenticated" ? "; set test.existingSecret to a Secret with an API key" : "";
    throw new Error(`the turn ended with ${error.code}: ${error.message}${hint}`);
  }
  if (!events.some((event) => event.turnCompleted)) throw new Error("the stream ended without turn_completed");
  return events.find((event) => event.turnStarted)?.turnStarted.track;
}

/** Connect's stream: a byte of flags, four of length, JSON; the last one says how it ended. */
function* envelopes(bytes) {
  for (let at = 0; at < bytes.length; ) {
    const end = at + 5 + bytes.readUInt32BE(at + 1);
    yield JSON.parse(bytes.subarray(at + 5, end).toString());
    at = end;
  }
}
