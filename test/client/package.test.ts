import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import { eventually } from "../support/eventually.ts";
import { startFaultProxy } from "../support/fault-proxy.ts";
import { installPackage } from "../support/installed-package.ts";
import { useTestApp } from "../support/use-app.ts";

// The package as somebody else has it: packed, installed in an empty folder, and used as its documentation says.

const project = join(import.meta.dirname, "../..");
const run = promisify(execFile);

/** A turn that takes three seconds to say. */
const app = useTestApp({ model: "sim-100x30" });
const WHOLE = Array.from({ length: 100 }, (_, index) => `piece ${index} `).join("");

let folder: string;
beforeAll(async () => {
  ({ folder } = await installPackage());
});
afterAll(() => rm(folder, { recursive: true, force: true }));

/** A documented program, for a service elsewhere. */
async function writeProgram(program: string, port: number): Promise<string> {
  expect(program).toContain("http://localhost:8080");
  const file = join(folder, `program-${port}-${program.length}.ts`);
  await writeFile(file, program.replace("http://localhost:8080", `http://127.0.0.1:${port}`));
  return file;
}

const documented = readFileSync(join(project, "docs/clients.md"), "utf8");
const programs = [...documented.matchAll(/```ts\n([\s\S]*?)```/g)].map(([, program = ""]) => program);
const [first = ""] = programs;

test.each(programs)("a documented program has its types from the package", async (program) => {
  const file = await writeProgram(program, 8080);
  const options = ["--noEmit", "--strict", "--module", "nodenext", "--target", "es2023", "--types", ""];
  await run(join(project, "node_modules/.bin/tsc"), [...options, file], { cwd: folder }).catch(
    ({ stdout }: { stdout: string }) => expect.unreachable(stdout),
  );
});

test("its connection is cut midway, twice, and the text comes whole, once", async () => {
  const proxy = await startFaultProxy({ port: Number(new URL(app.url).port) });
  onTestFinished(() => proxy.stop());
  const calls = app.simulated.callCount;
  const program = spawn(process.execPath, [await writeProgram(first, proxy.port)], { cwd: folder });
  let output = "";
  let trouble = "";
  program.stdout.setEncoding("utf8").on("data", (text: string) => {
    output += text;
  });
  program.stderr.setEncoding("utf8").on("data", (text: string) => {
    trouble += text;
  });
  const closed = once(program, "close");
  for (const piece of [3, 40]) {
    await eventually(() => expect(output).toContain(`piece ${piece} `));
    proxy.cut();
    proxy.heal();
  }
  const [code] = await closed;
  expect(trouble).toBe("");
  expect(code).toBe(0);
  const lines = output.trimEnd().split("\n");
  expect(lines.slice(0, -1).join("")).toBe(WHOLE);
  expect(lines.at(-1)).toMatch(new RegExp(`^${WHOLE} STOP \\d+n millionths of a dollar$`));
  expect(app.simulated.callCount).toBe(calls + 2);
});

/** Bounds in bytes after gzip: of all, and of what the helper adds to the generated clients. */
const MOST_BYTES = { all: 45_000, added: 4_000 } as const;

async function bundle(contents: string, resolveDir: string): Promise<{ files: string[]; bytes: number }> {
  const { outputFiles, metafile } = await build({
    stdin: { contents, resolveDir },
    bundle: true,
    minify: true,
    format: "esm",
    platform: "browser",
    metafile: true,
    write: false,
    absWorkingDir: resolveDir,
  });
  const files = Object.keys(metafile.inputs).filter((file) => file !== "<stdin>");
  return { files, bytes: gzipSync(outputFiles[0]?.contents ?? "").length };
}

test("a page's bundle of it is small, and has nothing of the service", async () => {
  const helper = await bundle('export { createParley } from "parley/client";', folder);
  const packages = /^node_modules\/(parley\/client\.js$|@bufbuild\/protobuf\/|@connectrpc\/(connect|connect-web)\/)/;
  expect(helper.files.length).toBeGreaterThan(10);
  expect(helper.files.filter((file) => !packages.test(file))).toEqual([]);
  // What the package's one file was made of: each begins with its name.
  const parts = readFileSync(join(folder, "node_modules/parley/client.js"), "utf8").matchAll(/^\/\/ (\S+\.[jt]s)$/gm);
  const sources = Array.from(parts, ([, source = ""]) => source);
  expect(sources.length).toBeGreaterThan(10);
  expect(sources.filter((source) => !/^(client|gen\/parley\/chat|gen\/google\/rpc)\//.test(source))).toEqual([]);
  const generated = await bundle(
    `
    export { createClient } from "@connectrpc/connect";
    export { createConnectTransport } from "@connectrpc/connect-web";
    export { ChatService } from "./gen/parley/chat/v1/chat_service_pb.js";
    export { SessionService } from "./gen/parley/chat/v1/session_service_pb.js";
    export { ErrorInfoSchema } from "./gen/google/rpc/error_details_pb.js";
  `,
    project,
  );
  const added = helper.bytes - generated.bytes;
  console.info(`parley/client in a page: ${helper.bytes} bytes after gzip, ${added} of them its own`);
  expect(helper.bytes).toBeLessThan(MOST_BYTES.all);
  expect(added).toBeLessThan(MOST_BYTES.added);
});
