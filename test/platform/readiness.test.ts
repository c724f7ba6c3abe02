import { afterEach, expect, test, vi } from "vitest";
import { NotReady, type ReadinessCheck, type ReadinessMonitor, startReadiness } from "../../src/platform/readiness.ts";
import { eventually } from "../support/eventually.ts";

const monitors: ReadinessMonitor[] = [];

afterEach(() => {
  for (const monitor of monitors.splice(0)) monitor.stop();
});

test("nothing is ready before the first checks, and all is after they succeed", async () => {
  const store = switchable("store", "always");
  const monitor = start([store.check]);
  expect(monitor.current()).toEqual({
    ready: false,
    draining: false,
    checks: { store: { ok: false, reason: "not checked yet" } },
  });
  await monitor.checkedOnce;
  expect(monitor.current()).toEqual({ ready: true, draining: false, checks: { store: { ok: true, reason: "" } } });
});

test("a check required always takes readiness away when it fails and gives it back when it succeeds", async () => {
  const store = switchable("store", "always");
  const monitor = start([store.check]);
  await monitor.checkedOnce;
  store.fail(new NotReady("Redis does not answer"));
  await eventually(() => expect(monitor.current().ready).toBe(false));
  expect(monitor.current().checks.store).toEqual({ ok: false, reason: "Redis does not answer" });
  store.mend();
  await eventually(() => expect(monitor.current().ready).toBe(true));
});

test("a check required once keeps a process unready until its first success; a later failure is only reported", async () => {
  const store = switchable("store", "always");
  const model = switchable("model", "once");
  model.fail(new NotReady("no endpoint answers"));
  const monitor = start([store.check, model.check]);
  await monitor.checkedOnce;
  expect(monitor.current()).toMatchObject({ ready: false, checks: { store: { ok: true }, model: { ok: false } } });

  model.mend();
  await eventually(() => expect(monitor.current().ready).toBe(true));
  model.fail(new NotReady("no endpoint answers"));
  await eventually(() => expect(monitor.current().checks.model?.ok).toBe(false));
  expect(monitor.current()).toMatchObject({ ready: true, checks: { model: { reason: "no endpoint answers" } } });
});

test("asking makes no check", async () => {
  const store = switchable("store", "always");
  const monitor = start([store.check], { intervalMs: 60_000 });
  await monitor.checkedOnce;
  for (let ask = 0; ask < 100; ask++) monitor.current();
  expect(store.calls()).toBe(1);
});

test("a check that never answers has failed after the timeout, and its signal is aborted", async () => {
  const signals: AbortSignal[] = [];
  const monitor = start([
    {
      name: "store",
      required: "always",
      check: (signal) => {
        signals.push(signal);
        return new Promise(() => {});
      },
    },
  ]);
  await monitor.checkedOnce;
  expect(monitor.current().checks.store).toEqual({ ok: false, reason: "no answer within 50 ms" });
  expect(signals[0]?.aborted).toBe(true);
});

test.each([
  [
    "code",
    Object.assign(new Error("connect to redis://:secret@host"), { code: "ECONNREFUSED" }),
    "failed: ECONNREFUSED",
  ],
  ["reason", Object.assign(new Error("secret"), { reason: "STORE_UNAVAILABLE" }), "failed: STORE_UNAVAILABLE"],
  ["type", new TypeError("secret"), "failed: TypeError"],
  ["absence", "secret", "failed"],
  ["absence again", undefined, "failed"],
])("of an error that is no sentence for others, the %s is told", async (_, error, reason) => {
  const store = switchable("store", "always");
  store.fail(error);
  const monitor = start([store.check]);
  await monitor.checkedOnce;
  expect(monitor.current().checks.store?.reason).toBe(reason);
});

test("a check that throws instead of rejecting has failed", async () => {
  const check = (): Promise<void> => {
    throw new NotReady("not set up");
  };
  const monitor = start([{ name: "store", required: "always", check }]);
  await monitor.checkedOnce;
  expect(monitor.current().checks.store?.reason).toBe("not set up");
});

test("listeners hear of each change once, and not after they have left", async () => {
  const store = switchable("store", "always");
  const monitor = start([store.check]);
  const heard: boolean[] = [];
  const leave = monitor.onChange(({ ready }) => heard.push(ready));
  await monitor.checkedOnce;
  store.fail(new NotReady("gone"));
  await eventually(() => expect(heard).toEqual([true, false]));
  const calls = store.calls();
  await eventually(() => expect(store.calls()).toBeGreaterThan(calls + 2));
  expect(heard).toEqual([true, false]);
  leave();
  store.mend();
  await eventually(() => expect(monitor.current().ready).toBe(true));
  expect(heard).toEqual([true, false]);
});

test("a draining process is not ready whatever its checks say", async () => {
  const store = switchable("store", "always");
  const monitor = start([store.check]);
  await monitor.checkedOnce;
  const heard: boolean[] = [];
  monitor.onChange(({ ready }) => heard.push(ready));
  monitor.drain();
  expect(monitor.current()).toMatchObject({ ready: false, draining: true, checks: { store: { ok: true } } });
  expect(heard).toEqual([false]);
});

test("no check is made after the stop", async () => {
  vi.useFakeTimers();
  try {
    const store = switchable("store", "always");
    const monitor = start([store.check]);
    await vi.advanceTimersByTimeAsync(100);
    const calls = store.calls();
    expect(calls).toBeGreaterThan(2);
    monitor.stop();
    await vi.advanceTimersByTimeAsync(100);
    expect(store.calls()).toBe(calls);
  } finally {
    vi.useRealTimers();
  }
});

function start(checks: readonly ReadinessCheck[], { intervalMs = 5 } = {}): ReadinessMonitor {
  const monitor = startReadiness({ checks, intervalMs, timeoutMs: 50 });
  monitors.push(monitor);
  return monitor;
}

function switchable(name: string, required: "always" | "once") {
  let broken = false;
  let error: unknown;
  let calls = 0;
  const check: ReadinessCheck = {
    name,
    required,
    async check() {
      calls++;
      if (broken) throw error;
    },
  };
  return {
    check,
    calls: () => calls,
    fail(reason: unknown) {
      broken = true;
      error = reason;
    },
    mend() {
      broken = false;
    },
  };
}
