import { Code, createClient } from "@connectrpc/connect";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { ErrorInfoSchema, RetryInfoSchema } from "../../gen/google/rpc/error_details_pb.js";
import { ChatService } from "../../gen/parley/chat/v1/chat_service_pb.js";
import { FinishReason, TurnCursorSchema, TurnState } from "../../gen/parley/chat/v1/turn_pb.js";
import { eventually } from "../support/eventually.ts";
import { startTestApp, type TestApp } from "../support/parley-app.ts";
import { contentTypeOf, errorOf, framed, sendRaw } from "./raw-call.ts";
import { wires } from "./wires.ts";

// Sent by hand: a generated client gives up by itself at its deadline and would not wait for what the server says.

let app: TestApp;
beforeAll(async () => {
  // 60 pieces take at least 0.6 s; the deadline is 0.2 s.
  app = await startTestApp({ model: "sim-60x10" });
});
afterAll(() => app.close());

const jsonWires = wires.filter(({ json, protocol }) => json || protocol === "grpc-web");

describe.each(jsonWires)("on $name", (wire) => {
  describe.each([
    ["Chat", false],
    ["StreamChat", true],
  ] as const)("%s", (rpc, stream) => {
    const shape = { ...wire, json: true };
    const late = async (fields: Record<string, unknown> = {}) => {
      const message = Buffer.from(JSON.stringify({ message: "hello", userId: "u1", ...fields }));
      const deadline = wire.protocol === "connect" ? { "connect-timeout-ms": "200" } : { "grpc-timeout": "200m" };
      const headers = { "content-type": contentTypeOf(shape, stream), ...deadline };
      const path = `/parley.chat.v1.ChatService/${rpc}`;
      const answer = await sendRaw(app.url, { path, headers, body: framed(shape, stream, message) }, wire.httpVersion);
      const error = errorOf(shape, stream, answer);
      expect(Code[error?.code ?? 0]).toBe("DeadlineExceeded");
      expect(error?.findDetails(ErrorInfoSchema)).toMatchObject([{ domain: "parley", reason: "DEADLINE_EXCEEDED" }]);
      expect(error?.findDetails(RetryInfoSchema)).toEqual([]);
      return error;
    };
    const turnOf = async (turnId: string) => {
      const { turn } = await createClient(ChatService, wire.transport(app.url)).getTurn({ turnId });
      return turn;
    };

    test("ends the call with the cursor of the turn, which goes on to its end", async () => {
      const [cursor] = (await late())?.findDetails(TurnCursorSchema) ?? [];
      expect(cursor?.turnId).toMatch(/./);
      const turn = await vi.waitFor(
        async () => {
          const now = await turnOf(cursor?.turnId ?? "");
          expect(now?.state).toBe(TurnState.FINISHED);
          return now;
        },
        { timeout: 10_000 },
      );
      expect(turn?.finishReason).toBe(FinishReason.STOP);
      expect(turn?.lastSequence).toBeGreaterThan(cursor?.lastSequence ?? 0n);
    });

    test("ends a turn that is to end with its call, and then there is no cursor", async () => {
      const calls = app.simulated.callCount;
      const error = await late({ onDisconnect: "ON_DISCONNECT_CANCEL", userId: "u-cancel" });
      expect(error?.findDetails(TurnCursorSchema)).toEqual([]);
      expect(app.simulated.callCount).toBe(calls + 1);
      await vi.waitFor(() => expect(app.simulated.calls.at(-1)?.state).toBe("closed_by_client"), { timeout: 10_000 });
      await eventually(() => expect(app.logs.where({ finish_reason: "DEADLINE" }).length).toBeGreaterThan(0));
    });
  });
});
