import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport, createGrpcTransport, createGrpcWebTransport } from "@connectrpc/connect-node";
import { describe, expect, test } from "vitest";
import { ChatService } from "../../gen/parley/chat/v1/chat_service_pb.js";
import { UsageService } from "../../gen/parley/usage/v1/usage_service_pb.js";
import { settle } from "../console/spent.ts";
import { useTestApp } from "../support/use-app.ts";

// In the standalone UsageService answers on the service's port too, beside the services that live there.

const whole = useTestApp({ withUsage: true });
const alone = useTestApp();

const transports = {
  "gRPC over h2c": (baseUrl: string) => createGrpcTransport({ baseUrl }),
  "gRPC-Web over HTTP/1.1": (baseUrl: string) => createGrpcWebTransport({ baseUrl, httpVersion: "1.1" }),
  "Connect over HTTP/1.1": (baseUrl: string) => createConnectTransport({ baseUrl, httpVersion: "1.1" }),
  "Connect over h2c": (baseUrl: string) => createConnectTransport({ baseUrl, httpVersion: "2" }),
};

describe.each(Object.entries(transports))("by %s", (name, transportTo) => {
  const range = () => ({ startTime: timestampFromMs(0), endTime: timestampFromMs(Date.now() + 86_400_000) });

  test("usage is read and a turn is run on the same port, and both see the same ledger", async () => {
    const chat = createClient(ChatService, transportTo(whole.url));
    const usage = createClient(UsageService, transportTo(whole.url));
    await settle(whole.stores.accounts, { recordId: name, team: name, costMicroUsd: 7n });
    const { response } = await chat.chat({ message: "hello", userId: name });
    expect(response).toContain("hello");
    const records = [];
    for await (const { record } of usage.exportUsage(range())) records.push(record);
    expect(records.filter((record) => record?.team === name).map((record) => record?.costMicroUsd)).toEqual([7n]);
    expect(records.filter((record) => record?.userId === name)).toHaveLength(1);
    const { groups } = await usage.queryUsage(range());
    expect(groups[0]?.costMicroUsd).toBe(records.reduce((sum, record) => sum + (record?.costMicroUsd ?? 0n), 0n));
  });

  test("where the service is alone there is no such RPC", async () => {
    const usage = createClient(UsageService, transportTo(alone.url));
    const error = await usage.listBudgets({}).then(
      () => undefined,
      (thrown: unknown) => ConnectError.from(thrown),
    );
    expect(error?.code).toBe(Code.Unimplemented);
  });
});
