import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import { eventually } from "../../support/eventually.ts";
import { grpcurl } from "../../support/grpcurl.ts";
import { useProbedService } from "./probed-service.ts";
import { openWatchedLine } from "./watched-line.ts";

// What the port looks like to the tools that people have at hand.

const service = useProbedService();

/** Runs curl; what it wrote, and its exit code. */
async function curl(...args: string[]): Promise<{ stdout: string; exitCode: number }> {
  try {
    const { stdout } = await promisify(execFile)("curl", ["-sS", ...args], { maxBuffer: 32 * 1_024 * 1_024 });
    return { stdout, exitCode: 0 };
  } catch (error) {
    const { code, stdout } = error as { code?: unknown; stdout?: string };
    if (typeof code !== "number") throw error;
    return { stdout: stdout ?? "", exitCode: code };
  }
}

const JSON_TYPE = ["-H", "content-type: application/json"];
const rpc = (name: string): string => `${service.url}/parley.chat.v1.ChatService/${name}`;
const hello = (message: string, fields = {}): string => JSON.stringify({ message, userId: "u1", ...fields });

async function newSession(): Promise<string> {
  const path = `${service.url}/parley.chat.v1.SessionService/CreateSession`;
  const { stdout } = await curl(...JSON_TYPE, "-d", '{"userId":"u1"}', path);
  return JSON.parse(stdout).session.sessionId;
}

describe("grpcurl", () => {
  const chat = "parley.chat.v1.ChatService";

  test("a stream's events come as they are said, and trailers after them", async () => {
    const { exitCode, stdout } = await grpcurl(service.url, ["-v", "-d", hello("hi there")], `${chat}/StreamChat`);
    expect(exitCode).toBe(0);
    expect(stdout).toContain('"turnStarted"');
    expect(stdout).toContain('"turnCompleted"');
    expect(stdout).toMatch(/x-request-id: \S+/);
    expect(stdout).toContain("Sent 1 request and received");
  });

  test("a deadline ends the call, and the turn goes on", async () => {
    const options = ["-max-time", "1", "-d", hello("hi", { agentTeam: "stall" })];
    const { exitCode, stdout, stderr } = await grpcurl(service.url, options, `${chat}/StreamChat`);
    expect(stderr).toMatch(/DeadlineExceeded|context deadline exceeded/);
    expect(exitCode).toBe(64 + 4);
    const turnId = /"turnId": "(.+)"/.exec(stdout)?.[1];
    const now = await grpcurl(service.url, ["-d", JSON.stringify({ turnId })], `${chat}/GetTurn`);
    expect(now.stdout).toContain("TURN_STATE_RUNNING");
    await grpcurl(service.url, ["-d", JSON.stringify({ turnId })], `${chat}/CancelTurn`);
  });

  test("an error's details are read by reflection, their types too", async () => {
    const { exitCode, stderr } = await grpcurl(service.url, ["-format-error", "-d", "{}"], `${chat}/Chat`);
    expect(exitCode).toBe(64 + 3);
    expect(stderr).toContain("google.rpc.BadRequest");
    expect(stderr).toContain("must have 1 to 10,000 characters");
    expect(stderr).toContain("INVALID_FIELD");
  });

  test("keepalive pings beside a silent call do not end it", async () => {
    const line = await openWatchedLine(service.url);
    const sessionId = await newSession();
    // grpcurl sends them no sooner than every ten seconds.
    const options = ["-keepalive-time", "10", "-d", hello("hi", { agentTeam: "stall", sessionId })];
    const silent = grpcurl(line.url, options, `${chat}/StreamChat`);
    const answered = () => line.answeredPings.filter((data) => /^0+$/.test(data)).length;
    await eventually(() => expect(answered()).toBeGreaterThan(0));
    const last = hello("that was all", { sessionId, onBusy: "ON_BUSY_INTERRUPT" });
    expect((await curl(...JSON_TYPE, "-d", last, rpc("Chat"))).stdout).toContain("“that was all”");
    // Ended by the other turn, and not by its connection.
    const { exitCode, stderr } = await silent;
    expect(stderr).toContain("TURN_INTERRUPTED");
    expect(exitCode).toBe(64 + 10);
  });
});

describe("curl", () => {
  test.each([
    ["HTTP/1.1", "--http1.1", "1.1"],
    // Sent as HTTP/1.1 with an offer to upgrade, which is not taken up.
    ["HTTP/1.1 with an offer of h2c", "--http2", "1.1"],
    ["h2c with prior knowledge", "--http2-prior-knowledge", "2"],
    // Answered as 1.1, as HTTP demands of who speaks both.
    ["HTTP/1.0", "--http1.0", "1.1"],
  ])("a reply over %s", async (_, option, version) => {
    const { stdout } = await curl(
      option,
      ...JSON_TYPE,
      "-d",
      hello("hi"),
      "-w",
      "\n%{http_code} %{http_version}",
      rpc("Chat"),
    );
    const [body = "", status] = stdout.split("\n");
    expect(JSON.parse(body)).toMatchObject({ response: expect.stringContaining("“hi”"), tokenUsage: {} });
    expect(status).toBe(`200 ${version}`);
  });

  test.each([
    ["gzip", "gzip"],
    ["br", "br"],
  ])("a large reply compressed with %s", async (encoding, sent) => {
    const text = "compress-me-".repeat(800);
    const { stdout } = await curl(
      "--compressed",
      ...["-H", `accept-encoding: ${encoding}`],
      ...JSON_TYPE,
      ...["-d", hello(text), "-w", "\n%header{content-encoding} %{size_download}", rpc("Chat")],
    );
    const [body = "", facts = ""] = stdout.split("\n");
    expect(JSON.parse(body).response).toContain(text);
    const [contentEncoding, bytes] = facts.split(" ");
    expect(contentEncoding).toBe(sent);
    expect(Number(bytes)).toBeLessThan(text.length / 2);
  });

  test.each(["--http1.1", "--http2-prior-knowledge"])(
    "a body that is announced first (100-continue) and too large is refused, %s",
    async (option) => {
      const body = hello("x".repeat(2_000_000));
      const child = promisify(execFile)("curl", [
        ...["-sS", option, ...JSON_TYPE, "-H", "expect: 100-continue", "--data-binary", "@-", rpc("Chat")],
      ]);
      child.child.stdin?.on("error", () => undefined);
      child.child.stdin?.end(body);
      const { stdout } = await child;
      expect(JSON.parse(stdout)).toMatchObject({
        code: "resource_exhausted",
        details: expect.arrayContaining([
          expect.objectContaining({ debug: { reason: "REQUEST_TOO_LARGE", domain: "parley" } }),
        ]),
      });
    },
  );

  test("a chunked body is read as any other", async () => {
    const { stdout } = await curl(...JSON_TYPE, "-H", "transfer-encoding: chunked", "-d", hello("hi"), rpc("Chat"));
    expect(JSON.parse(stdout).response).toContain("“hi”");
  });

  test("an empty body is refused for its fields, and an empty reply is {}", async () => {
    const refused = await curl(...JSON_TYPE, "-d", "{}", "-w", "\n%{http_code}", rpc("Chat"));
    expect(refused.stdout.split("\n")[1]).toBe("400");
    const path = `${service.url}/parley.chat.v1.SessionService/DeleteSession`;
    const deleted = await curl(...JSON_TYPE, "-d", JSON.stringify({ sessionId: await newSession() }), path);
    expect(deleted.stdout).toBe("{}");
  });

  test.each(["--http1.1", "--http2-prior-knowledge"])(
    "a deadline in a header ends a call with its cursor, %s",
    async (option) => {
      const body = hello("hi", { agentTeam: "stall" });
      const { stdout } = await curl(option, ...JSON_TYPE, "-H", "connect-timeout-ms: 500", "-d", body, rpc("Chat"));
      const { code, details } = JSON.parse(stdout) as {
        code: string;
        details: { type: string; debug: { turnId: string } }[];
      };
      expect(code).toBe("deadline_exceeded");
      const turnId = details.find(({ type }) => type === "parley.chat.v1.TurnCursor")?.debug.turnId;
      const ended = await curl(...JSON_TYPE, "-d", JSON.stringify({ turnId }), rpc("CancelTurn"));
      expect(JSON.parse(ended.stdout).turn.turnId).toBe(turnId);
    },
  );

  test.each(["--http1.1", "--http2-prior-knowledge"])(
    "a client that hangs up ends a turn that is to end with it, %s",
    async (option) => {
      const sessionId = await newSession();
      const body = hello("hi", { agentTeam: "stall", onDisconnect: "ON_DISCONNECT_CANCEL", sessionId });
      const { exitCode } = await curl(option, "--max-time", "1", ...JSON_TYPE, "-d", body, rpc("Chat"));
      expect(exitCode).toBe(28);
      // The session is free again: this turn does not wait behind one that never ends.
      const next = await curl("--max-time", "20", ...JSON_TYPE, "-d", hello("and now", { sessionId }), rpc("Chat"));
      expect(JSON.parse(next.stdout).response).toContain("“and now”");
    },
  );

  test("gRPC's trailers are trailers", async () => {
    const { stdout } = await curl(
      ...[
        "--http2-prior-knowledge",
        "-D",
        "-",
        "-o",
        "/dev/null",
        "-H",
        "content-type: application/grpc",
        "-H",
        "te: trailers",
      ],
      ...["--data-binary", "", rpc("GetTurn")],
    );
    expect(stdout).toMatch(/^HTTP\/2 200/);
    expect(stdout).toMatch(/^grpc-status: \d+/m);
  });
});
