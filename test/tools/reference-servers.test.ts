import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, onTestFinished, test } from "vitest";
import { ToolOutcome } from "../../gen/parley/chat/v1/turn_event_pb.js";
import type { McpServerDefinition } from "../../src/tools/mcp-servers-yaml.ts";
import { eventually } from "../support/eventually.ts";
import { outcomeOf, serverOf } from "./tool-server.ts";

// The protocol's own reference servers, from npm, as their users start them.

const { ERROR, REFUSED } = ToolOutcome;

const EVERYTHING = fileURLToPath(import.meta.resolve("@modelcontextprotocol/server-everything/dist/index.js"));
const FILESYSTEM = fileURLToPath(import.meta.resolve("@modelcontextprotocol/server-filesystem/dist/index.js"));

/** A port that nobody has. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  return typeof address === "object" && address !== null ? address.port : 0;
}

async function overHttp(): Promise<McpServerDefinition["transport"]> {
  const port = await freePort();
  const child: ChildProcess = spawn(process.execPath, [EVERYTHING, "streamableHttp"], {
    env: { PATH: process.env.PATH, PORT: String(port) },
    stdio: "ignore",
  });
  const ended = once(child, "close");
  onTestFinished(async () => {
    child.kill("SIGKILL");
    await ended;
  });
  const url = `http://127.0.0.1:${port}/mcp`;
  await eventually(async () => expect((await fetch(url)).status).toBeGreaterThan(0));
  return { kind: "http", url, headers: {} };
}

const ways: Readonly<Record<string, () => Promise<McpServerDefinition["transport"]>>> = {
  stdio: async () => ({ kind: "stdio", command: process.execPath, args: [EVERYTHING, "stdio"], env: {} }),
  "streamable HTTP": overHttp,
};

describe.each(Object.entries(ways))("server-everything over %s", (_, way) => {
  test("its tools say what they say: text, numbers, structure, pictures", async () => {
    const { server, told } = serverOf(await way());
    expect(await outcomeOf(server, "echo", { message: "Grüße" })).toBe("Echo: Grüße");
    expect(await outcomeOf(server, "get-sum", { a: 2, b: 3 })).toContain("5");
    const weather = await outcomeOf(server, "get-structured-content", { location: "Chicago" });
    expect(JSON.parse(String(weather))).toMatchObject({ temperature: expect.any(Number) });
    expect(await outcomeOf(server, "get-tiny-image")).toContain("[image, image/png: not shown]");
    expect(told).toEqual(["reached"]);
  });

  test("arguments that do not fit are refused, a tool that is not there fails, one that is late is given up", async () => {
    const { server } = serverOf(await way(), { callTimeoutMs: 1_500 });
    expect(await outcomeOf(server, "get-sum", { a: "two", b: 3 })).toMatchObject({ outcome: REFUSED });
    expect(await outcomeOf(server, "fly")).toMatchObject({ outcome: ERROR });
    expect(await outcomeOf(server, "trigger-long-running-operation", { duration: 60, steps: 60 })).toEqual({
      outcome: ERROR,
      told: "The tool did not answer in time; it may have taken effect.",
    });
    expect(await outcomeOf(server, "echo", { message: "on" })).toBe("Echo: on");
  });
});

describe("server-filesystem on a folder", () => {
  const started = async () => {
    const folder = await mkdtemp(join(tmpdir(), "parley-files-"));
    onTestFinished(() => rm(folder, { recursive: true, force: true }));
    const args = [FILESYSTEM, folder];
    const { server } = serverOf(
      { kind: "stdio", command: process.execPath, args, env: {} },
      { maxResultBytes: 10_000 },
    );
    return { folder, server };
  };

  test("files are written and read there, and nowhere else", async () => {
    const { folder, server } = await started();
    const path = join(folder, "note.txt");
    expect(await outcomeOf(server, "write_file", { path, content: "purple" })).toContain("Successfully wrote");
    expect(await readFile(path, "utf8")).toBe("purple");
    expect(await outcomeOf(server, "read_text_file", { path })).toContain("purple");
    expect(await outcomeOf(server, "read_text_file", { path: "/etc/passwd" })).toMatchObject({
      outcome: ERROR,
      told: expect.stringContaining("outside allowed directories"),
    });
    expect(server.describe("read_text_file")?.annotations).toMatchObject({ readOnlyHint: true });
  });

  test("a file that is too long is not read, and the server is of use after it", async () => {
    const { folder, server } = await started();
    await writeFile(join(folder, "long.txt"), "x".repeat(50_000_000));
    await writeFile(join(folder, "short.txt"), "short");
    expect(await outcomeOf(server, "read_text_file", { path: join(folder, "long.txt") })).toMatchObject({
      outcome: ERROR,
      told: expect.stringContaining("too long"),
    });
    expect(await outcomeOf(server, "read_text_file", { path: join(folder, "short.txt") })).toContain("short");
  });
});
