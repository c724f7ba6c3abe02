import { type ChildProcess, fork, spawn } from "node:child_process";
import { closeSync, openSync, readFileSync } from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { setTimeout as delay } from "node:timers/promises";

/** A process of the bench's own: what it costs, and how it ends. */
export interface BenchProcess {
  readonly pid: number;
  /** Ends it and waits for that. */
  stop(): Promise<void>;
}

/** Forks a module that reports `{port}` by IPC once it serves. */
export async function forkServer(
  moduleName: string,
  args: readonly string[] = [],
): Promise<BenchProcess & { port: number; child: ChildProcess }> {
  const child = fork(new URL(moduleName, import.meta.url), args, { stdio: ["ignore", "inherit", "inherit", "ipc"] });
  const port = await new Promise<number>((resolve, reject) => {
    child.once("message", (message: { port: number }) => resolve(message.port));
    child.once("exit", (code) => reject(new Error(`${moduleName} ended with ${code} before it served`)));
  });
  return { ...processOf(child), port, child };
}

/** Starts a program and waits until `isReady` says so; rejects with the end of its output when it ends or takes too long. */
export async function startProgram(
  command: string,
  args: readonly string[],
  { env, isReady, outputFile }: { env?: NodeJS.ProcessEnv; isReady: () => Promise<boolean>; outputFile: string },
): Promise<BenchProcess> {
  const outputFd = openSync(outputFile, "a");
  const child = spawn(command, args, { env: env ?? process.env, stdio: ["ignore", outputFd, outputFd] });
  closeSync(outputFd);
  const failed = Promise.withResolvers<never>();
  // Handled by whoever races it; after that an end is no news.
  failed.promise.catch(() => {});
  child.once("error", failed.reject);
  child.once("exit", (code) => {
    const said = readFileSync(outputFile, "utf8").slice(-2_000);
    failed.reject(new Error(`${command} ended with ${code} before it was ready:\n${said}`));
  });
  const deadline = performance.now() + START_TIMEOUT_MS;
  while (!(await Promise.race([isReady().catch(() => false), failed.promise]))) {
    if (performance.now() > deadline) {
      child.kill("SIGKILL");
      throw new Error(`${command} was not ready within ${START_TIMEOUT_MS} ms`);
    }
    await delay(50);
  }
  return processOf(child);
}

const START_TIMEOUT_MS = 30_000;
const STOP_TIMEOUT_MS = 15_000;

function processOf(child: ChildProcess): BenchProcess {
  const { pid } = child;
  if (pid === undefined) throw new Error("the process did not start");
  return {
    pid,
    async stop() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const exited = new Promise((resolve) => child.once("exit", resolve));
      child.kill("SIGTERM");
      const killer = setTimeout(() => child.kill("SIGKILL"), STOP_TIMEOUT_MS);
      await exited;
      clearTimeout(killer);
    },
  };
}

/** A port that was free a moment ago. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** Processor time of all threads of a process so far, in milliseconds; Linux only (proc(5), stat). */
export function cpuTimeMs(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
  // The name in parentheses may hold spaces; field 3 follows it.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  const clockTicks = Number(fields[11]) + Number(fields[12]);
  return (clockTicks * 1_000) / CLOCK_TICKS_PER_SECOND;
}

/** USER_HZ, 100 on every Linux that Node runs on. */
const CLOCK_TICKS_PER_SECOND = 100;

/** Resident memory of a process in bytes; Linux only (proc(5), status). */
export function residentBytes(pid: number): number {
  const line = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "latin1"));
  if (!line) throw new Error(`process ${pid} shows no resident memory`);
  return Number(line[1]) * 1_024;
}

/** Open files that a process of ours may have. */
export function openFilesLimit(): number {
  const line = /^Max open files\s+(\d+)/m.exec(readFileSync("/proc/self/limits", "latin1"));
  return Number(line?.[1] ?? 0);
}
