import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { createConsoleLogger } from "../../src/platform/console-logger.ts";
import { createLogger } from "../../src/platform/logger.ts";
import type { Logger, LogLevel } from "../../src/platform/logger-port.ts";

const loggers: [string, (level: LogLevel, write: (line: string) => void) => Logger][] = [
  ["pino", (level, write) => createLogger({ level, version: "1.2.3", track: "canary", destination: { write } })],
  [
    "console",
    (level, write) => createConsoleLogger({ level, service: "parley", version: "1.2.3", track: "canary", write }),
  ],
];

test.each(loggers)("%s: a line has level, ISO time, service, version, track, facts and sentence", (_, create) => {
  const { lines, write } = collector();
  create("info", write).info({ session_id: "s1", messages: 3 }, "turn ended");
  expect(lines()).toEqual([
    {
      level: "info",
      time: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/),
      service: "parley",
      version: "1.2.3",
      track: "canary",
      session_id: "s1",
      messages: 3,
      msg: "turn ended",
    },
  ]);
});

test.each(loggers)("%s: lines below the level are not written", (_, create) => {
  const { lines, write } = collector();
  const logger = create("warn", write);
  for (const level of ["debug", "info", "warn", "error"] as const) logger[level]({}, level);
  expect(lines().map((line) => line.msg)).toEqual(["warn", "error"]);
  create("silent", write).error({}, "unheard");
  expect(lines()).toHaveLength(2);
});

test.each(loggers)("%s: a child adds its facts to every line, its own children's too", (_, create) => {
  const { lines, write } = collector();
  const logger = create("info", write).child({ session_id: "s1" }).child({ turn_id: "t1" });
  logger.warn({ attempt: 2 }, "trying again");
  expect(lines()[0]).toMatchObject({ session_id: "s1", turn_id: "t1", attempt: 2 });
});

test.each(loggers)(
  "%s: an error is logged by type, code, reason, frames and causes, without what it quotes",
  (_, create) => {
    const { lines, write } = collector();
    const quoting = "SECRET said the user\n    at SECRET, in a line like a frame's:1:2";
    const cause = Object.assign(new Error(quoting), { code: "ECONNREFUSED" });
    const error = Object.assign(new TypeError(quoting, { cause }), {
      reason: "STORE_UNAVAILABLE",
      code: "secret code",
    });
    create("info", write).error({ error }, "store lost");
    const [line] = lines();
    expect(line?.error).toMatchObject({
      type: "TypeError",
      reason: "STORE_UNAVAILABLE",
      cause: { code: "ECONNREFUSED" },
    });
    expect(JSON.stringify(line?.error)).toContain("logger.test.ts");
    expect(JSON.stringify(line)).not.toMatch(/secret/i);
  },
);

test.each(loggers)("%s: whatever was thrown can be logged, a circular chain of causes too", (_, create) => {
  const { lines, write } = collector();
  const circular = new Error("a");
  circular.cause = circular;
  for (const error of ["SECRET string", undefined, null, 7, circular]) create("info", write).error({ error }, "thrown");
  expect(lines()).toHaveLength(5);
  expect(lines()[0]?.error).toEqual({ type: "string" });
  expect(JSON.stringify(lines())).not.toContain("SECRET");
});

test("facts of the moment are in every line", () => {
  const { lines, write } = collector();
  let traceId = "t1";
  const logger = createLogger({
    level: "info",
    version: "0",
    track: "stable",
    destination: { write },
    mixin: () => ({ trace_id: traceId }),
  });
  logger.info({}, "first");
  traceId = "t2";
  logger.child({}).info({}, "second");
  expect(lines().map((line) => line.trace_id)).toEqual(["t1", "t2"]);
});

test.each([
  ["flushed", "await logger.flush(); process.kill(process.pid, 'SIGKILL');", "SIGKILL"],
  ["left to the exit", "process.exit(0);", undefined],
])("lines on standard output that are %s are not lost", async (_, end, endedBy) => {
  const program = `
    import { createLogger } from ${JSON.stringify(new URL("../../src/platform/logger.ts", import.meta.url).href)};
    const logger = createLogger({ level: "info", version: "0", track: "stable" });
    for (let line = 0; line < 100; line++) logger.info({ line }, "counted");
    ${end}`;
  const run = promisify(execFile)(process.execPath, ["--input-type=module-typescript", "-e", program]);
  const ended = run.then((output) => ({ ...output, signal: undefined }));
  const { stdout, signal } = await ended.catch((error: { stdout: string; signal: string | null }) => error);
  expect(signal).toBe(endedBy);
  const numbers = stdout
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line).line);
  // A write that is under way when the process exits may come after the exit's own: none is lost, none comes twice.
  expect(numbers.toSorted((a, b) => a - b)).toEqual(Array.from({ length: 100 }, (_, line) => line));
});

function collector(): { lines: () => Record<string, unknown>[]; write: (line: string) => void } {
  const written: string[] = [];
  return { lines: () => written.map((line) => JSON.parse(line)), write: (line) => written.push(line) };
}
