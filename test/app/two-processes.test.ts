import { expect, test } from "vitest";
import { Role } from "../../gen/parley/chat/v1/message_pb.js";
import { WRITTEN_SCHEMA_KEY } from "../../src/store/redis-keys.ts";
import { callerOf, USER } from "./clients.ts";
import { startParts } from "./parts.ts";

test("a session that was created on one process goes on on the other, which knows what was said", async () => {
  const { model, redis, startTwo } = await startParts();
  const [first, second] = await startTwo();
  const [a, b] = [callerOf(first), callerOf(second)];
  const sessionId = await a.createSession();
  await a.say(sessionId, "my name is Ada");
  const reply = await b.say(sessionId, "what is my name?");
  expect(reply).toContain("my name is Ada");
  // The model was sent the whole conversation, in order.
  expect(model.calls.at(-1)?.messages.map(({ role }) => role)).toEqual(["system", "user", "assistant", "user"]);
  expect(model.calls.at(-1)?.messages[1]?.content).toBe("my name is Ada");
  expect(await a.history(sessionId)).toEqual(await b.history(sessionId));
  expect((await b.messages(sessionId)).map(({ role }) => role)).toEqual([
    Role.USER,
    Role.ASSISTANT,
    Role.USER,
    Role.ASSISTANT,
  ]);
  // Whatever requests have made goes away by itself.
  // The one other key is the release's own note, made as a process starts.
  const keys = (await redis.keys("*")).filter((key) => key !== WRITTEN_SCHEMA_KEY);
  expect(keys.length).toBeGreaterThan(8);
  // One may have gone meanwhile (-2); none is there for ever (-1).
  for (const key of keys) expect([key, (await redis.lifeMs(key)) === -1]).toEqual([key, false]);
  const { session } = await b.sessions.getSession({ sessionId });
  expect(session).toMatchObject({ userId: USER, messageCount: 4n });
});
