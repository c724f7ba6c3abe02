import { beforeAll, expect, test } from "vitest";
import { SLOW_REPLY, shareParts } from "../app/parts.ts";
import type { ServiceProcess } from "../support/service-process.ts";
import { officialClients } from "./openai-clients.ts";

// The replica that streams a completion is killed.

const parts = shareParts();
const env = { LEASE_MS: "1000" };
let survivor: ServiceProcess;
beforeAll(async () => {
  survivor = await parts().startReplica(env);
});

const messages = [
  { role: "system", content: "Answer in French." },
  { role: "user", content: "my name is Ada" },
  { role: "assistant", content: "Bonjour Ada" },
  { role: "user", content: "go on" },
] as const;

test("whoever asks another one with the same key gets the turn, as it was asked for and with nothing void", async () => {
  const owner = await parts().startReplica(env);
  const headers = { "idempotency-key": crypto.randomUUID() };
  const response = await fetch(`${owner.url}/v1/chat/completions`, {
    method: "POST",
    headers: { ...headers, "content-type": "application/json" },
    body: JSON.stringify({ model: "slow", messages, user: "ann", stream: true, temperature: 0.2 }),
  });
  const turnId = response.headers.get("x-parley-turn-id");
  const reader = response.body?.getReader();
  await reader?.read();
  await owner.kill();
  // It is cut, and says nothing of a regular end.
  let rest = "";
  try {
    for (let piece = await reader?.read(); piece?.done === false; piece = await reader?.read()) {
      rest += new TextDecoder().decode(piece.value);
    }
  } catch {
    // The connection broke.
  }
  expect(rest).not.toContain("[DONE]");

  for (const [name, call] of officialClients) {
    for (const stream of [true, false]) {
      const request = { model: "slow", messages: [...messages], user: "ann", temperature: 0.2, stream };
      // Whether it is streamed is not of the turn: both forms are the same request.
      const answer = await call({ url: survivor.url, headers, request });
      expect(answer, name).toMatchObject({ id: `chatcmpl-${turnId}`, content: SLOW_REPLY, finishReason: "stop" });
    }
  }
  const calls = parts().model.calls.filter(({ messages: sent }) => sent.at(-1)?.content === "go on");
  expect(calls.map(({ body }) => body.temperature)).toEqual([0.2, 0.2]);
  for (const { messages: sent } of calls) {
    expect(sent[0]?.content).toMatch(/\n\nAnswer in French\.$/);
    expect(sent.slice(1)).toEqual(messages.slice(1));
  }
});
