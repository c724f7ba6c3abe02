import type { DescMethod } from "@bufbuild/protobuf";
import { Code, type ConnectError, createClient, type Transport } from "@connectrpc/connect";
import { describe, expect, test } from "vitest";
import { ChatService } from "../../gen/parley/chat/v1/chat_service_pb.js";
import { SessionService } from "../../gen/parley/chat/v1/session_service_pb.js";
import { UsageService } from "../../gen/parley/usage/v1/usage_service_pb.js";
import { useTestApp } from "../support/use-app.ts";
import { drained, expectRefusal, refusalOf } from "./refusals.ts";
import { wires } from "./wires.ts";

// RPCs that this port does not serve say so; all others are there.

const app = useTestApp();

describe.each(wires)("on $name", (wire) => {
  test.each([...ChatService.methods, ...SessionService.methods])("$name", async (method) => {
    const error = await endOf(wire.transport(app.url), method);
    // An empty request is refused for what it lacks, not for being asked.
    expect(error.code).toBeOneOf([Code.InvalidArgument, Code.NotFound]);
  });

  // The sidecar serves these.
  test.each([...UsageService.methods])("UsageService's $name", async (method) => {
    const error = await endOf(wire.transport(app.url), method);
    expectRefusal(error, { code: Code.Unimplemented, reason: "UNKNOWN_METHOD" });
  });
});

test("UsageService has the RPCs that the sidecar serves", () => {
  expect(UsageService.methods.map(({ name, methodKind }) => `${name} ${methodKind}`)).toEqual([
    "QueryUsage unary",
    "ExportUsage server_streaming",
    "ListBudgets unary",
    "SetBudget unary",
    "ListPrices unary",
    "RepriceUsage unary",
  ]);
});

/** How a call with an empty request ends. */
async function endOf(transport: Transport, { parent, localName, methodKind }: DescMethod): Promise<ConnectError> {
  const client = createClient(parent, transport) as Record<string, (request: object) => unknown>;
  const answer = client[localName]?.({});
  const end = methodKind === "unary" ? (answer as Promise<unknown>) : drained(answer as AsyncIterable<unknown>);
  return refusalOf(end);
}
