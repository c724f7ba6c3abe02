/** Something that a process needs before, or while, it can serve. */
export interface ReadinessCheck {
  /** Name in the body of /readyz. */
  readonly name: string;
  /** `always`: ready only while it succeeds. `once`: ready from its first success on; a later failure is only reported. */
  readonly required: "always" | "once";
  /** Rejects when there is something wrong. Only a {@link NotReady}'s sentence is shown; of other errors, code or type. */
  check(signal: AbortSignal): Promise<void>;
}

/** A check's failure, its message a sentence that may be shown: no addresses with passwords, no keys. */
export class NotReady extends Error {
  constructor(sentence: string, options?: ErrorOptions) {
    super(sentence, options);
    this.name = "NotReady";
  }
}

/** What /readyz answers. */
export interface Readiness {
  readonly ready: boolean;
  /** The process is about to end and takes no new work. */
  readonly draining: boolean;
  readonly checks: Readonly<Record<string, CheckResult>>;
}

export interface CheckResult {
  readonly ok: boolean;
  /** Why not; empty when ok. */
  readonly reason: string;
}

export interface ReadinessMonitor {
  /** The newest results. Reads what the background found: any number of probes costs nothing. */
  current(): Readiness;
  /** Calls back whenever `ready` changes; returns how to stop. */
  onChange(listener: (readiness: Readiness) => void): () => void;
  /** Calls back after each check, and when draining begins, whether or not anything changed; returns how to stop. */
  onCheck(listener: (readiness: Readiness) => void): () => void;
  /** Not ready from now on, for good. */
  drain(): void;
  /** Resolves when every check has been made once. */
  readonly checkedOnce: Promise<void>;
  /** Ends the background checks. */
  stop(): void;
}

/**
 * Checks in the background, each check on its own beat so that a slow one delays no other.
 *
 * @param intervalMs Pause between a check's end and its next beginning. Default 2,000: seen well within the two failed
 * probes that take a pod out.
 * @param timeoutMs A check that takes longer has failed. Default 1,500.
 */
export function startReadiness({
  checks,
  intervalMs = 2_000,
  timeoutMs = 1_500,
}: {
  readonly checks: readonly ReadinessCheck[];
  readonly intervalMs?: number;
  readonly timeoutMs?: number;
}): ReadinessMonitor {
  const stop = new AbortController();
  const listeners = new Set<(readiness: Readiness) => void>();
  const checkListeners = new Set<(readiness: Readiness) => void>();
  const states = checks.map((check) => ({ check, result: NOT_CHECKED, everOk: false }));
  let draining = false;

  const current = (): Readiness => ({
    ready: !draining && states.every(({ check, result, everOk }) => (check.required === "once" ? everOk : result.ok)),
    draining,
    checks: Object.fromEntries(states.map(({ check, result }) => [check.name, result])),
  });
  let wasReady = current().ready;
  const tell = (): void => {
    const readiness = current();
    for (const listener of checkListeners) listener(readiness);
    if (readiness.ready === wasReady) return;
    wasReady = readiness.ready;
    for (const listener of listeners) listener(readiness);
  };
  const checkOnce = async (state: (typeof states)[number]): Promise<void> => {
    const result = await run(state.check, { timeoutMs, stop: stop.signal });
    if (stop.signal.aborted) return;
    state.result = result;
    state.everOk ||= result.ok;
    tell();
  };
  const checkOnAndOn = async (state: (typeof states)[number]): Promise<void> => {
    while (await pause(intervalMs, stop.signal)) await checkOnce(state);
  };
  const checkedOnce = Promise.all(
    states.map(async (state) => {
      await checkOnce(state);
      void checkOnAndOn(state);
    }),
  );

  return {
    current,
    checkedOnce: checkedOnce.then(() => {}),
    onChange(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    onCheck(listener) {
      checkListeners.add(listener);
      return () => checkListeners.delete(listener);
    },
    drain() {
      draining = true;
      tell();
    },
    stop: () => stop.abort(),
  };
}

const NOT_CHECKED: CheckResult = Object.freeze({ ok: false, reason: "not checked yet" });

const OK: CheckResult = Object.freeze({ ok: true, reason: "" });

async function run(
  check: ReadinessCheck,
  { timeoutMs, stop }: { timeoutMs: number; stop: AbortSignal },
): Promise<CheckResult> {
  const late = new AbortController();
  const timer = setTimeout(() => late.abort(new NotReady(`no answer within ${timeoutMs} ms`)), timeoutMs);
  const signal = AbortSignal.any([stop, late.signal]);
  const given = Promise.withResolvers<never>();
  const giveUp = (): void => given.reject(signal.reason);
  signal.addEventListener("abort", giveUp, { once: true });
  try {
    // A check that ignores its signal is given up all the same.
    await Promise.race([check.check(signal), given.promise]);
    return OK;
  } catch (error) {
    return { ok: false, reason: reasonOf(error) };
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", giveUp);
  }
}

function reasonOf(error: unknown): string {
  if (error instanceof NotReady) return error.message;
  if (!(error instanceof Error)) return "failed";
  const { code, reason, name } = error as Error & { code?: unknown; reason?: unknown };
  for (const word of [reason, code, name]) if (typeof word === "string" && /^\w+$/.test(word)) return `failed: ${word}`;
  return "failed";
}

/** False when `stop` came first. */
function pause(ms: number, stop: AbortSignal): Promise<boolean> {
  return new Promise((resolve) => {
    if (stop.aborted) return resolve(false);
    const end = (went: boolean): void => {
      clearTimeout(timer);
      stop.removeEventListener("abort", stopped);
      resolve(went);
    };
    const stopped = (): void => end(false);
    const timer = setTimeout(() => end(true), ms);
    // Checks keep no process alive.
    timer.unref();
    stop.addEventListener("abort", stopped);
  });
}
