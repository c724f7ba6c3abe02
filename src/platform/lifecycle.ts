/** What a process has to put away before it ends, in the order that it was set up, put away last in, first out. */
export interface Lifecycle {
  /**
   * Registers a cleanup. Registered after {@link Lifecycle.close} has begun, it still runs, before those registered
   * earlier that have not begun.
   *
   * @param deadlineMs After this many milliseconds the cleanup counts as failed and the next one begins. Default 5,000:
   * short of the 30 s that Kubernetes grants. Cleanups that wait for work to end set their own.
   */
  onClose(name: string, cleanup: () => void | Promise<void>, options?: { readonly deadlineMs?: number }): void;
  /**
   * Runs the cleanups one after another, all of them, whatever fails. Repeated calls get the same promise. Rejects with
   * an AggregateError of {@link CleanupError}s, in the order in which they ran, when any failed or was late.
   */
  close(): Promise<void>;
}

/** A cleanup that failed or was late. */
export class CleanupError extends Error {
  /** The cleanup's name. */
  readonly cleanup: string;

  constructor(cleanup: string, problem: string, options?: ErrorOptions) {
    super(`${cleanup}: ${problem}`, options);
    this.name = "CleanupError";
    this.cleanup = cleanup;
  }
}

const DEFAULT_DEADLINE_MS = 5_000;

export function createLifecycle(): Lifecycle {
  const cleanups: Cleanup[] = [];
  let closing: Promise<void> | undefined;

  const runAll = async (): Promise<void> => {
    const errors: CleanupError[] = [];
    for (let cleanup = cleanups.pop(); cleanup !== undefined; cleanup = cleanups.pop()) {
      const error = await run(cleanup);
      if (error !== undefined) errors.push(error);
    }
    if (errors.length > 0) throw new AggregateError(errors, errors.map((error) => error.message).join("; "));
  };

  return {
    onClose(name, cleanup, { deadlineMs = DEFAULT_DEADLINE_MS } = {}) {
      cleanups.push({ name, cleanup, deadlineMs });
    },
    close() {
      closing ??= runAll();
      return closing;
    },
  };
}

interface Cleanup {
  readonly name: string;
  readonly cleanup: () => void | Promise<void>;
  readonly deadlineMs: number;
}

async function run({ name, cleanup, deadlineMs }: Cleanup): Promise<CleanupError | undefined> {
  const late = Promise.withResolvers<CleanupError>();
  const timer = setTimeout(() => late.resolve(new CleanupError(name, `not done after ${deadlineMs} ms`)), deadlineMs);
  try {
    // The race holds a handler on the cleanup's promise, so that a failure after the deadline is no unhandled rejection.
    return (await Promise.race([cleanup(), late.promise])) ?? undefined;
  } catch (error) {
    return new CleanupError(name, error instanceof Error ? error.message : "failed", { cause: error });
  } finally {
    clearTimeout(timer);
  }
}
