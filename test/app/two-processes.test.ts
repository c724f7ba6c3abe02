import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { Role } from "../../gen/parley/chat/v1/message_pb.js";
import { type SimulatedModel, startSimulatedModel } from "../../src/providers/simulated-model.ts";
import { type RedisServer, startRedisServer } from "../support/redis-server.ts";
import { type ServiceProcess, startServiceProcess } from "../support/service-process.ts";
import { callerOf, USER } from "./clients.ts";

// Two service processes on one Redis.

let redis: RedisServer;
let model: SimulatedModel;
beforeAll(async () => {
  [redis, model] = await Promise.all([
    startRedisServer({ appendOnly: true }),
    startSimulatedModel({ chunkDelayMs: 2 }),
  ]);
});
afterAll(async () => {
  await redis.stop();
  await model.close();
});

async function startTwo(env: Record<string, string> = {}): Promise<[ServiceProcess, ServiceProcess]> {
  const start = async (): Promise<ServiceProcess> => {
    const service = await startServiceProcess({
      env: { REDIS_URL: redis.url, OPENAI_BASE_URL: model.baseUrl, ...env },
    });
    onTestFinished(() => service.stop());
    return service;
  };
  return Promise.all([start(), start()]);
}

describe("both on", () => {
  test("a session that was created on one goes on on the other, which knows what was said", async () => {
    const [a, b] = (await startTwo()).map(callerOf) as [ReturnType<typeof callerOf>, ReturnType<typeof callerOf>];
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
    const { session } = await b.sessions.getSession({ sessionId });
    expect(session).toMatchObject({ userId: USER, messageCount: 4n });
  });
});
