import { once } from "node:events";
import { connect } from "node:net";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { describe, expect, onTestFinished, test } from "vitest";
import { ErrorInfoSchema, RetryInfoSchema } from "../../gen/google/rpc/error_details_pb.js";
import { ChatService } from "../../gen/parley/chat/v1/chat_service_pb.js";
import { TurnCursorSchema } from "../../gen/parley/chat/v1/turn_pb.js";
import { startTestApp, type TestAppOptions } from "../support/parley-app.ts";
import { wires } from "./wires.ts";

async function start(options: TestAppOptions) {
  const app = await startTestApp(options);
  onTestFinished(() => app.close());
  return app;
}

describe.each(wires)("on $name", (wire) => {
  test("a stream that runs when the service is told to stop is read to its end", async () => {
    const app = await start({ model: "sim-10x20" });
    const chat = createClient(ChatService, wire.transport(app.url));
    const cases: (string | undefined)[] = [];
    let text = "";
    let closing: Promise<void> | undefined;
    for await (const { event } of chat.streamChat({ message: "hello", userId: "u1" })) {
      closing ??= app.close();
      cases.push(event.case);
      if (event.case === "textDelta") text += event.value.text;
    }
    await closing;
    expect(cases.at(-1)).toBe("turnCompleted");
    expect(text.match(/piece \d/g)).toHaveLength(10);
    await expect(chat.chat({ message: "too late", userId: "u1" })).rejects.toThrow(ConnectError);
  });

  test("a turn that outlasts the drain ends its stream with UNAVAILABLE and the cursor", async () => {
    const app = await start({ model: "sim-stall", env: { DRAIN_MS: "50" } });
    const chat = createClient(ChatService, wire.transport(app.url));
    let closing: Promise<void> | undefined;
    let turnId = "";
    let last = 0n;
    const end = await (async () => {
      for await (const { event, sequence } of chat.streamChat({ message: "hello", userId: "u1" })) {
        if (event.case === "turnStarted") turnId = event.value.turnId;
        last = sequence;
        closing ??= app.close();
      }
    })().catch((error: unknown) => ConnectError.from(error));
    await closing;
    expect(end).toMatchObject({ code: Code.Unavailable });
    const error = end as ConnectError;
    expect(error.findDetails(ErrorInfoSchema)).toMatchObject([{ domain: "parley", reason: "DRAINING" }]);
    expect(error.findDetails(RetryInfoSchema)).toHaveLength(1);
    expect(error.findDetails(TurnCursorSchema)).toMatchObject([{ turnId, lastSequence: last }]);
  });
});

test("connections that are idle do not hold up the end, and new ones are not taken", async () => {
  const app = await start({});
  const { hostname, port } = new URL(app.url);
  const address = { host: hostname, port: Number(port) };
  const idle = connect(address);
  idle.write("GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n");
  await once(idle, "data");
  const startedMs = performance.now();
  const [hadError] = await Promise.all([once(idle, "close"), app.close()]);
  expect(hadError).toEqual([false]);
  // Node would close it after 5 s by itself: a service that waits for that is late.
  expect(performance.now() - startedMs).toBeLessThan(4_000);
  const refused = connect(address);
  const [error] = await once(refused, "error");
  expect(error).toMatchObject({ code: "ECONNREFUSED" });
});
