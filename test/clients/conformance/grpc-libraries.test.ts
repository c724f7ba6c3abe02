import { execFile } from "node:child_process";
import { join } from "node:path";
import { promisify } from "node:util";
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { beforeAll, describe, expect, test } from "vitest";
import { ChatService } from "../../../gen/parley/chat/v1/chat_service_pb.js";
import { eventually } from "../../support/eventually.ts";
import { getReady } from "../example.ts";
import { useProbedService } from "./probed-service.ts";
import { openWatchedLine, type WatchedLine } from "./watched-line.ts";

// What the port looks like to gRPC's own libraries: each case is a run of a small program in their language, which prints
// what it saw. They are other implementations of the protocol than those that test/rpc calls with: Go's own, and the C core.

const PROBES = [
  {
    client: "grpc-go",
    example: "go",
    command: ["go", "run", "."],
    folder: join(import.meta.dirname, "go"),
    /** How many there must be, and how they are told from its measurements of bandwidth. It sends them every ten seconds. */
    keepalive: { pings: 2, data: /^0+$/ },
    /** Whether the library tells how messages came. */
    seesCompression: true,
  },
  {
    client: "grpcio",
    example: "python",
    command: [join(import.meta.dirname, "../../../examples/python/.venv/bin/python"), "probe.py"],
    folder: import.meta.dirname,
    keepalive: { pings: 10, data: /./ },
    seesCompression: false,
  },
] as const;

/** Turns of the long session, each of more than 50 kB: 4 MiB and more together, which is what gRPC's libraries take at most. */
const LONG_TURNS = 90;

const service = useProbedService();
let longSession: string;

beforeAll(async () => {
  const chat = createClient(ChatService, createGrpcTransport({ baseUrl: service.url }));
  longSession = "";
  for (let turn = 0; turn < LONG_TURNS; turn++) {
    const message = "🦜".repeat(10_000);
    // As many tokens as leave no room for earlier messages.
    const request = { message, userId: "u1", agentTeam: "roomy", maxTokens: 40_000, sessionId: longSession };
    longSession = (await chat.chat(request)).sessionId;
  }
});

describe.each(PROBES)("$client", ({ example, command: [program, ...args], folder, keepalive, seesCompression }) => {
  beforeAll(() => getReady(example));

  /** Runs a case, each over a line and a connection of its own. It is told to go on when `until` is done. */
  const probe = async (name: string, until: (line: WatchedLine) => unknown = () => undefined): Promise<unknown> => {
    const line = await openWatchedLine(service.url);
    const run = promisify(execFile)(program, [...args, name], {
      cwd: folder,
      env: { ...process.env, PARLEY_URL: line.url, LONG_SESSION: longSession },
    });
    const [{ stdout }] = await Promise.all([run, Promise.resolve(until(line)).finally(() => run.child.stdin?.end())]);
    expect(line.connections).toBe(1);
    return JSON.parse(stdout);
  };

  test.each<[name: string, saw: Readonly<Record<string, unknown>>]>([
    [
      "headers and trailers",
      {
        code: "NOT_FOUND",
        reason: "TURN_NOT_FOUND",
        details: ["google.rpc.ErrorInfo"],
        answered_request_id: "probe-1",
        refused_request_id: "probe-1",
      },
    ],
    ["deadline", { code: "DEADLINE_EXCEEDED", state: "TURN_STATE_RUNNING" }],
    ["cancellation", { code: "CANCELLED", finish_reason: "FINISH_REASON_CANCELLED" }],
    [
      "compression",
      { replied: true, streamed: true, refusal: "NOT_FOUND", ...(seesCompression ? { compressed: true } : {}) },
    ],
    [
      "large messages",
      {
        replied: true,
        code: "RESOURCE_EXHAUSTED",
        reason: "REQUEST_TOO_LARGE",
        details: ["google.rpc.ErrorInfo"],
        after: "OK",
      },
    ],
    ["large pages", { messages: 2 * LONG_TURNS, more_than_a_page: true }],
    [
      "empty messages",
      {
        health: "SERVING",
        deleted_bytes: 0,
        code: "INVALID_ARGUMENT",
        reason: "INVALID_FIELD",
        details: ["google.rpc.ErrorInfo", "google.rpc.BadRequest"],
      },
    ],
    ["half-closed streams", { answers: 3, ended: true, waits: true, then_turn_begun: true }],
    ["reset streams", { state_beside: "TURN_STATE_RUNNING", end_beside: "CANCELLED" }],
    // All of them broken off at once, twice.
    [
      "a thousand streams",
      {
        whole: 1_000,
        cancelled: 2 * 998,
        states_beside: ["TURN_STATE_RUNNING", "TURN_STATE_RUNNING"],
        end_beside: "CANCELLED",
      },
    ],
  ])("%s", async (name, saw) => {
    expect(await probe(name)).toEqual(saw);
  });

  test("keepalive pings", async () => {
    const answered = (line: WatchedLine): Promise<void> =>
      eventually(
        () =>
          expect(line.answeredPings.filter((data) => keepalive.data.test(data)).length).toBeGreaterThanOrEqual(
            keepalive.pings,
          ),
        {
          timeout: 45_000,
        },
      );
    expect(await probe("keepalive pings", answered)).toEqual({ state: "TURN_STATE_RUNNING", end: "CANCELLED" });
  });
});
