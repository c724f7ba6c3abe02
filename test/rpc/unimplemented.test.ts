import type { DescMethod } from "@bufbuild/protobuf";
import { Code, type ConnectError, createClient, type Transport } from "@connectrpc/connect";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ChatService } from "../../gen/parley/chat/v1/chat_service_pb.js";
import { SessionService } from "../../gen/parley/chat/v1/session_service_pb.js";
import { startTestApp, type TestApp } from "../support/parley-app.ts";
import { drained, expectRefusal, refusalOf } from "./refusals.ts";
import { wires } from "./wires.ts";

// RPCs of later releases say so; all others are there. Whoever builds one of these takes it off the list.
const LATER = ["ResumeTurn", "CancelTurn", "PreviewChat"];

let app: TestApp;
beforeAll(async () => {
  app = await startTestApp();
});
afterAll(() => app.close());

describe.each(wires)("on $name", (wire) => {
  test.each([...ChatService.methods, ...SessionService.methods])("$name", async (method) => {
    const error = await endOf(wire.transport(app.url), method);
    if (LATER.includes(method.name)) {
      expectRefusal(error, { code: Code.Unimplemented, reason: "NOT_IMPLEMENTED" });
    } else {
      // An empty request is refused for what it lacks, not for being asked.
      expect(error.code).toBeOneOf([Code.InvalidArgument, Code.NotFound]);
    }
  });
});

/** How a call with an empty request ends. */
async function endOf(transport: Transport, { parent, localName, methodKind }: DescMethod): Promise<ConnectError> {
  const client = createClient(parent, transport) as Record<string, (request: object) => unknown>;
  const answer = client[localName]?.({});
  const end = methodKind === "unary" ? (answer as Promise<unknown>) : drained(answer as AsyncIterable<unknown>);
  return refusalOf(end);
}
