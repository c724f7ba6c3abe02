import { Code } from "@connectrpc/connect";
import { expect, test } from "vitest";
import { QuotaFailureSchema, RetryInfoSchema } from "../../gen/google/rpc/error_details_pb.js";
import { drained, expectRefusal, refusalOf } from "../rpc/refusals.ts";
import { threeWires } from "../rpc/wires.ts";
import { callerOf, USER } from "./clients.ts";
import { startParts } from "./parts.ts";

test("a user's turns are counted over both processes; who is beyond the limit is told it and when to come back", async () => {
  const { startTwo, redis, model } = await startParts();
  const services = await startTwo({ RATE_LIMIT: "4", RATE_WINDOW: "600" });
  const [a, b] = services.map((service) => callerOf(service));
  const sessionId = (await a?.createSession()) ?? "";
  for (const caller of [a, b, a, b]) await caller?.say(sessionId, "hello");
  const calls = model.callCount;
  for (const service of services) {
    for (const wire of threeWires) {
      const { chat } = callerOf(service, wire);
      const request = { sessionId, message: "once more", userId: USER };
      for (const call of [() => chat.chat(request), () => drained(chat.streamChat(request))]) {
        const refusal = await refusalOf(call());
        expectRefusal(refusal, { code: Code.ResourceExhausted, reason: "RATE_LIMITED" });
        const [quota] = refusal.findDetails(QuotaFailureSchema);
        expect(quota?.violations).toMatchObject([{ subject: `user:${USER}`, description: "4 turns per 600 seconds" }]);
        const [retry] = refusal.findDetails(RetryInfoSchema);
        expect(retry?.retryDelay?.seconds).toBeLessThanOrEqual(600n);
        expect(retry?.retryDelay?.seconds).toBeGreaterThan(0n);
      }
    }
  }
  expect(model.callCount).toBe(calls);
  // Reads cost nothing, others are not held up, and the count goes away by itself.
  expect(await b?.history(sessionId)).toHaveLength(8);
  expect((await b?.chat.chat({ message: "hello", userId: "u2" }))?.response).toContain("hello");
  for (const key of await redis.keys("*:rate:*")) expect(await redis.lifeMs(key)).toBeGreaterThan(0);
  expect(await redis.keys("*:rate:*")).toHaveLength(2);
});
