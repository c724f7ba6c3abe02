import { type ChildProcess, type SpawnOptions, spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, openSync } from "node:fs";

/** A program that runs as long as the mesh does, and writes to a file of its own. */
export interface Daemon {
  readonly logFile: string;
  stop(): Promise<void>;
}

/** A daemon that does not end on SIGTERM is killed after this long, in milliseconds. */
const STOP_DEADLINE_MS = 10_000;

/** Starts a program; resolves once `isUp` does. Rejects where it ends before, or takes more than a minute. */
export async function startDaemon(
  [command = "", ...args]: readonly string[],
  { logFile, isUp, ...options }: SpawnOptions & { readonly logFile: string; isUp(): Promise<unknown> },
): Promise<Daemon> {
  const log = openSync(logFile, "a");
  const child = spawn(command, args, { ...options, stdio: ["ignore", log, log] });
  closeSync(log);
  const stop = (): Promise<void> => stopProcess(child);
  try {
    await until(`${command} to start (${logFile})`, async () => {
      if (child.exitCode !== null || child.signalCode !== null) throw new Error(`${command} ended: see ${logFile}`);
      return isUp().then(
        () => true,
        () => false,
      );
    });
  } catch (error) {
    await stop();
    throw error;
  }
  return { logFile, stop };
}

async function stopProcess(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = once(child, "exit");
  child.kill("SIGTERM");
  const timer = setTimeout(() => child.kill("SIGKILL"), STOP_DEADLINE_MS);
  await ended;
  clearTimeout(timer);
}

/** Asks until the answer is not false or undefined, and returns it. Rejects with what was waited for after `timeoutMs`. */
export async function until<T>(
  what: string,
  ask: () => Promise<T | false | undefined> | T | false | undefined,
  { timeoutMs = 60_000, everyMs = 100 }: { readonly timeoutMs?: number; readonly everyMs?: number } = {},
): Promise<T> {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    const answer = await ask();
    if (answer !== false && answer !== undefined) return answer;
    if (Date.now() > deadline) throw new Error(`waited ${timeoutMs / 1_000} s for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, everyMs));
  }
}
