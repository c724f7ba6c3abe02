import { ConfigError } from "./environment.ts";

/** What runs until it is told to stop. */
export interface Closable {
  close(): Promise<void>;
  /** Reads again what may change while it runs; absent: SIGHUP ends the process, as it does by default. */
  reload?(): void;
}

/**
 * Runs a service until SIGTERM or SIGINT, then closes it and ends the process. A second signal ends it at once. SIGHUP
 * reloads it. What cannot be started is said in a sentence on standard error, with exit code 1.
 */
export async function runUntilSignal({ start }: { start(): Promise<Closable> }): Promise<void> {
  let app: Closable;
  try {
    app = await start();
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : "Parley could not be started."}\n`);
    process.exitCode = error instanceof ConfigError ? 2 : 1;
    process.exit();
  }
  let closing = false;
  const onSignal = (): void => {
    if (closing) process.exit(1);
    closing = true;
    app
      .close()
      .catch((error: unknown) => {
        process.stderr.write(`${error instanceof Error ? error.message : "Not everything could be put away."}\n`);
        process.exitCode = 1;
      })
      .finally(() => process.exit());
  };
  if (app.reload !== undefined) process.on("SIGHUP", () => app.reload?.());
  process.on("SIGTERM", onSignal);
  process.on("SIGINT", onSignal);
}
