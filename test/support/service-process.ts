import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";

const PROJECT = join(import.meta.dirname, "../..");

/** A service says where it is, or is ready, this long after its start at the latest, in milliseconds. */
const START_DEADLINE_MS = 30_000;

/** A service that does not end on SIGTERM is killed after this long, in milliseconds. */
const STOP_DEADLINE_MS = 15_000;

const POLL_MS = 20;

export interface ServiceProcessOptions {
  /** Production by default. */
  readonly entry?:
    | "src/main.ts"
    | "sidecar/main.ts"
    | "standalone/main.ts"
    | "test/support/replica.ts"
    | "test/soak/replica.ts";
  /** Variables as `src/config.ts` knows them. Nothing of this process' environment but PATH is handed on. */
  readonly env?: Readonly<Record<string, string>>;
  /** Words after the entry's name. */
  readonly args?: readonly string[];
  /** Whether to wait until /readyz says 200. Default: yes; no: until it says where it is. */
  readonly awaitReady?: boolean;
}

/** How a process ended: by itself with a code, or by a signal. */
export interface ProcessEnd {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** A service in a process of its own, on free ports. */
export interface ServiceProcess {
  /** `http://127.0.0.1:<port>`: RPCs and the console. */
  readonly url: string;
  /** `http://127.0.0.1:<port>`: /livez, /readyz and /metrics. */
  readonly opsUrl: string;
  /** What it wrote to standard output and standard error so far. */
  output(): string;
  errorOutput(): string;
  /** Log lines so far whose facts are all these. */
  logged(facts: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>>[];
  /** What /readyz says. */
  readiness(): Promise<{ readonly status: number; readonly body: ReadinessBody }>;
  /** Value of a metric that has no labels of its own; undefined: there is none. */
  metric(name: string): Promise<number | undefined>;
  send(signal: NodeJS.Signals): void;
  readonly ended: Promise<ProcessEnd>;
  /** Kills it, as a machine that fails does. */
  kill(): Promise<void>;
  /** Ends it in peace, or by force where that takes too long. May be called when it has ended. */
  stop(): Promise<void>;
}

export interface ReadinessBody {
  readonly ready: boolean;
  readonly draining: boolean;
  readonly checks: Readonly<Record<string, { readonly ok: boolean; readonly reason: string }>>;
}

/** Starts a service as its users do. Rejects with what it wrote to standard error when it ends before it serves. */
export async function startServiceProcess({
  entry = "src/main.ts",
  env = {},
  args = [],
  awaitReady = true,
}: ServiceProcessOptions = {}): Promise<ServiceProcess> {
  const { child, output, errorOutput, ended } = spawnService(
    entry,
    { PORT: "0", OPS_PORT: "0", USAGE_PORT: "0", USAGE_OPS_PORT: "0", RATE_LIMIT: "1000000", ...env },
    args,
  );
  const end = async (signal: NodeJS.Signals): Promise<void> => {
    if (child.exitCode === null && child.signalCode === null) {
      // One that stands still ends too.
      child.kill("SIGCONT");
      child.kill(signal);
    }
    const timer = setTimeout(() => child.kill("SIGKILL"), STOP_DEADLINE_MS);
    await ended;
    clearTimeout(timer);
  };
  const lines = (): Record<string, unknown>[] =>
    output()
      .split("\n")
      .slice(0, -1)
      .flatMap((line) => (line.startsWith("{") ? [JSON.parse(line) as Record<string, unknown>] : []));
  const urls = (): { url: string; opsUrl: string } | undefined => {
    const serving = lines().find((line) => line.msg === "serving");
    if (serving !== undefined) return { url: String(serving.url), opsUrl: String(serving.ops_url) };
    const url = /Parley \S+ is at (\S+)/.exec(output())?.[1];
    const opsUrl = /Ops: +(\S+)\/readyz/.exec(output())?.[1];
    return url === undefined || opsUrl === undefined ? undefined : { url, opsUrl };
  };
  let over: ProcessEnd | undefined;
  void ended.then((how) => {
    over = how;
  });
  try {
    const { url, opsUrl } = await until(() => {
      if (over !== undefined) throw new Error(`${entry} ended before it served: ${errorOutput()}`);
      return urls();
    });
    const readiness = async () => {
      const answer = await fetch(`${opsUrl}/readyz`);
      return { status: answer.status, body: (await answer.json()) as ReadinessBody };
    };
    if (awaitReady) await until(async () => (await readiness()).status === 200 || undefined);
    return {
      url,
      opsUrl,
      output,
      errorOutput,
      logged: (facts) => lines().filter((line) => Object.entries(facts).every(([name, value]) => line[name] === value)),
      readiness,
      async metric(name) {
        const text = await (await fetch(`${opsUrl}/metrics`)).text();
        const value = new RegExp(`^${name}(?:\\{.*\\})? (\\S+)$`, "m").exec(text)?.[1];
        return value === undefined ? undefined : Number(value);
      },
      send: (signal) => void child.kill(signal),
      ended,
      kill: () => end("SIGKILL"),
      stop: () => end("SIGTERM"),
    };
  } catch (error) {
    await end("SIGKILL");
    throw error;
  }
}

/** Runs a service that is expected to end by itself, and says how it did. */
export async function runServiceProcess({
  entry = "src/main.ts",
  env = {},
}: Omit<ServiceProcessOptions, "awaitReady">): Promise<
  ProcessEnd & { readonly output: string; readonly errorOutput: string }
> {
  const { child, output, errorOutput, ended } = spawnService(entry, env);
  const timer = setTimeout(() => child.kill("SIGKILL"), START_DEADLINE_MS);
  const how = await ended;
  clearTimeout(timer);
  return { ...how, output: output(), errorOutput: errorOutput() };
}

/** Where Node keeps what it has compiled: half the processor time of a start, and tests start hundreds. */
const COMPILE_CACHE = join(PROJECT, ".cache/node-compile");

function spawnService(entry: string, env: Readonly<Record<string, string>>, args: readonly string[] = []) {
  const child: ChildProcess = spawn(process.execPath, [join(PROJECT, entry), ...args], {
    env: { PATH: process.env.PATH, NODE_COMPILE_CACHE: COMPILE_CACHE, ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  // A test process that breaks off leaves nothing behind.
  const onExit = (): void => void child.kill("SIGKILL");
  process.once("exit", onExit);
  const ended = once(child, "close").then(([code, signal]): ProcessEnd => {
    process.off("exit", onExit);
    return { code, signal };
  });
  return { child, output: gather(child.stdout), errorOutput: gather(child.stderr), ended };
}

function gather(stream: ChildProcess["stdout"]): () => string {
  let text = "";
  stream?.setEncoding("utf8").on("data", (chunk: string) => {
    text += chunk;
  });
  return () => text;
}

/** The first value that is not undefined. */
async function until<T>(look: () => T | undefined | Promise<T | undefined>): Promise<T> {
  const deadlineMs = performance.now() + START_DEADLINE_MS;
  for (;;) {
    const found = await look();
    if (found !== undefined) return found;
    if (performance.now() > deadlineMs) throw new Error("the service is not ready in time");
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}
