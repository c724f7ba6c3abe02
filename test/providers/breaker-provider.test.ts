import { afterEach, beforeEach, expect, onTestFinished, test, vi } from "vitest";
import { UsageSource } from "../../gen/parley/chat/v1/token_usage_pb.js";
import { type Model, ModelCallFailure } from "../../src/engine/model.ts";
import { Failure, type FailureReason } from "../../src/failure.ts";
import type { BreakerOptions } from "../../src/platform/outcome-breaker.ts";
import { withBreaker } from "../../src/providers/breaker-provider.ts";
import { outcomeOf } from "./provider-calls.ts";

const RESET_MS = 1_000;
const MIN_CALLS = 4;

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

test("stays closed until it has seen enough calls, then opens and makes none", async () => {
  const { breaker, model, states } = guarded();
  for (let call = 1; call < MIN_CALLS; call++) await outcomeOf(breaker);
  expect(states).toEqual(["closed"]);
  await outcomeOf(breaker);
  expect(states).toEqual(["closed", "open"]);

  const { failure } = await outcomeOf(breaker);
  expect(model.calls).toBe(MIN_CALLS);
  expect(failure).not.toBeInstanceOf(ModelCallFailure);
  expect(failure?.reason).toBe("MODEL_UNAVAILABLE");
  expect(failure?.facts.retryAfterMs).toBe(RESET_MS);
  await vi.advanceTimersByTimeAsync(RESET_MS * 0.75);
  expect((await outcomeOf(breaker)).failure?.facts.retryAfterMs).toBeCloseTo(RESET_MS * 0.25, 0);
});

test.each([
  ["is cut or stalls after its first text", { failure: "MODEL_UNAVAILABLE", says: "Half a sen" }],
  ["fails before its first text", { failure: "MODEL_UNAVAILABLE" }],
  ["is not made for want of a connection", { failure: "MODEL_UNAVAILABLE", neverSent: true }],
  ["fails by a defect", { failure: "INTERNAL", neverSent: true }],
] as [string, Behaviour][])("a call that %s counts as a failure", async (_, behaviour) => {
  const { breaker, states } = guarded(behaviour);
  for (let call = 0; call < MIN_CALLS; call++) await outcomeOf(breaker);
  expect(states).toEqual(["closed", "open"]);
});

test.each(["MODEL_REFUSED", "MODEL_RATE_LIMITED"] as const)(
  "%s is the answer of a living server: it does not open",
  async (failure) => {
    const { breaker, model, states } = guarded({ failure });
    for (let call = 0; call < MIN_CALLS * 5; call++) await outcomeOf(breaker);
    expect(states).toEqual(["closed"]);
    expect(model.calls).toBe(MIN_CALLS * 5);
  },
);

test("calls that were cancelled do not count at all", async () => {
  const { breaker, model, states } = guarded({ failure: "CALL_CANCELLED" });
  for (let call = 0; call < MIN_CALLS * 5; call++) await outcomeOf(breaker);
  expect(states).toEqual(["closed"]);
  // Had they counted as successes, these would be too small a share.
  model.behave({ failure: "MODEL_UNAVAILABLE" });
  for (let call = 0; call < MIN_CALLS; call++) await outcomeOf(breaker);
  expect(states).toEqual(["closed", "open"]);
});

test("calls that a budget or the store kept from being sent do not count at all", async () => {
  const { breaker, model, states } = guarded();
  for (const reason of ["BUDGET_EXHAUSTED", "STORE_UNAVAILABLE", "INTERNAL"] as const) {
    const beforeAttempt = () => Promise.reject(new Failure(reason));
    for (let call = 0; call < MIN_CALLS * 5; call++) {
      expect((await outcomeOf(breaker, {}, { beforeAttempt })).failure?.reason).toBe(reason);
    }
  }
  expect(states).toEqual(["closed"]);
  // Had they counted as successes, these would be too small a share.
  for (let call = 0; call < MIN_CALLS; call++) await outcomeOf(breaker);
  expect([model.calls, states]).toEqual([MIN_CALLS, ["closed", "open"]]);
});

test.each([
  ["below its share of failures", 49, ["closed"]],
  ["at its share of failures", 50, ["closed", "open"]],
])("%s", async (_, failures, expected) => {
  const { breaker, model, states } = guarded({}, { minCalls: 100 });
  for (let call = 0; call < 100 - failures; call++) await outcomeOf(breaker);
  model.behave({ failure: "MODEL_UNAVAILABLE" });
  for (let call = 0; call < failures; call++) await outcomeOf(breaker);
  expect(states).toEqual(expected);
});

test("a share of 100 percent opens when nothing else happens than failures", async () => {
  const { breaker, states } = guarded({ failure: "MODEL_UNAVAILABLE" }, { errorThresholdPercent: 100 });
  for (let call = 0; call < MIN_CALLS; call++) await outcomeOf(breaker);
  expect(states).toEqual(["closed", "open"]);
});

test("failures of a window that has passed are forgotten", async () => {
  const { breaker, states } = guarded();
  for (let call = 1; call < MIN_CALLS; call++) await outcomeOf(breaker);
  await vi.advanceTimersByTimeAsync(11_000);
  for (let call = 1; call < MIN_CALLS; call++) await outcomeOf(breaker);
  expect(states).toEqual(["closed"]);
});

test("half-open it lets one call try, and closes when that one speaks", async () => {
  const { breaker, model, states } = await opened();
  const probe = model.hold({ says: "Hello" });
  const probing = outcomeOf(breaker);
  expect((await outcomeOf(breaker)).failure?.reason).toBe("MODEL_UNAVAILABLE");
  expect(model.calls).toBe(MIN_CALLS + 1);
  probe.speak();
  await vi.advanceTimersByTimeAsync(0);
  expect(states).toEqual(["closed", "open", "half_open", "closed"]);
  // The others need not wait for the probe's end.
  model.behave({ says: "Hi" });
  expect((await outcomeOf(breaker)).reply?.text).toBe("Hi");
  probe.end();
  expect((await probing).reply?.text).toBe("Hello");
});

test("half-open it opens again when the one that tries fails", async () => {
  const { breaker, model, states } = await opened();
  expect((await outcomeOf(breaker)).failure?.reason).toBe("MODEL_UNAVAILABLE");
  expect(states).toEqual(["closed", "open", "half_open", "open"]);
  expect((await outcomeOf(breaker)).failure).not.toBeInstanceOf(ModelCallFailure);
  expect(model.calls).toBe(MIN_CALLS + 1);
  await vi.advanceTimersByTimeAsync(RESET_MS);
  expect(states.at(-1)).toBe("half_open");
});

test("half-open it closes on a refusal: the server lives", async () => {
  const { breaker, model, states } = await opened();
  model.behave({ failure: "MODEL_REFUSED" });
  await outcomeOf(breaker);
  await vi.advanceTimersByTimeAsync(0);
  expect(states.at(-1)).toBe("closed");
});

test("a probe that is cancelled before it spoke is neither success nor failure: the next call tries", async () => {
  const { breaker, model, states } = await opened();
  model.behave({ failure: "CALL_CANCELLED" });
  await outcomeOf(breaker);
  await vi.advanceTimersByTimeAsync(0);
  expect(states.at(-1)).toBe("half_open");
  model.behave({ says: "Hi" });
  expect((await outcomeOf(breaker)).reply?.text).toBe("Hi");
  await vi.advanceTimersByTimeAsync(0);
  expect(states.at(-1)).toBe("closed");
});

test("a probe that spoke and then broke off counts as a failure of the closed breaker", async () => {
  const { breaker, model, states } = await opened();
  model.behave({ says: "Half a sen", failure: "MODEL_UNAVAILABLE" });
  for (let call = 0; call < MIN_CALLS; call++) {
    await outcomeOf(breaker);
    await vi.advanceTimersByTimeAsync(0);
  }
  expect(states.slice(3)).toEqual(["closed", "open"]);
});

test("a call that began before it opened says nothing about the endpoint after it", async () => {
  const { breaker, model, states } = guarded();
  const early = model.hold({ says: "Hello" });
  const long = outcomeOf(breaker);
  model.behave({ failure: "MODEL_UNAVAILABLE" });
  for (let call = 0; call < MIN_CALLS; call++) await outcomeOf(breaker);
  expect(states).toEqual(["closed", "open"]);
  await vi.advanceTimersByTimeAsync(RESET_MS);
  expect(states.at(-1)).toBe("half_open");
  early.speak();
  early.end();
  expect((await long).reply?.text).toBe("Hello");
  await vi.advanceTimersByTimeAsync(0);
  expect(states.at(-1)).toBe("half_open");
});

test("one that is open does not open another", async () => {
  const options = breakerOptions();
  const broken = withBreaker(scripted({ failure: "MODEL_UNAVAILABLE" }), options);
  const well = withBreaker(scripted({ says: "Hi" }), options);
  onTestFinished(() => {
    broken.close();
    well.close();
  });
  for (let call = 0; call < MIN_CALLS * 2; call++) await outcomeOf(broken);
  expect((await outcomeOf(well)).reply?.text).toBe("Hi");
  // opossum writes its defaults into what it is given.
  expect(options).toEqual(breakerOptions());
});

test("a call in flight is not ended by the failure of another", async () => {
  const { breaker, model } = guarded();
  const slow = model.hold({ says: "Hello" });
  const call = outcomeOf(breaker);
  model.behave({ failure: "MODEL_UNAVAILABLE" });
  for (let other = 0; other < MIN_CALLS; other++) await outcomeOf(breaker);
  // Longer than opossum's own timeout, too.
  await vi.advanceTimersByTimeAsync(60_000);
  slow.speak();
  slow.end();
  expect((await call).reply?.text).toBe("Hello");
});

/** How the scripted model answers. */
interface Behaviour {
  readonly says?: string;
  readonly failure?: FailureReason;
  /** The failure is of a call that was not made. */
  readonly neverSent?: boolean;
}

const usage = { promptTokens: 1, completionTokens: 1, source: UsageSource.PROVIDER };

function breakerOptions(): BreakerOptions {
  return { windowMs: 10_000, minCalls: MIN_CALLS, errorThresholdPercent: 50, resetMs: RESET_MS };
}

function scripted(first: Behaviour) {
  let behaviour = first;
  let held: { behaviour: Behaviour; spoken: Promise<void>; ended: Promise<void> } | undefined;
  let calls = 0;
  const model: Model = {
    async call({ model: name }, { onText, beforeAttempt }) {
      const mine = held;
      held = undefined;
      const { says = "", failure, neverSent = false } = mine?.behaviour ?? behaviour;
      await beforeAttempt({ model: name, promptTokens: 1, maxOutputTokens: 1, timeoutMs: 1 });
      calls++;
      await mine?.spoken;
      if (says !== "") onText(says);
      await mine?.ended;
      if (failure !== undefined) {
        throw neverSent ? new Failure(failure) : new ModelCallFailure(failure, { model: "gpt-4", usage });
      }
      return { model: "gpt-4", text: says, toolCalls: [], ended: "stop", usage };
    },
  };
  return {
    ...model,
    get calls() {
      return calls;
    },
    behave(next: Behaviour): void {
      behaviour = next;
    },
    /** The next call speaks and ends when it is told to. */
    hold(next: Behaviour) {
      const spoken = Promise.withResolvers<void>();
      const ended = Promise.withResolvers<void>();
      held = { behaviour: next, spoken: spoken.promise, ended: ended.promise };
      return { speak: () => spoken.resolve(), end: () => ended.resolve() };
    },
  };
}

function guarded(behaviour: Behaviour = { failure: "MODEL_UNAVAILABLE" }, options: Partial<BreakerOptions> = {}) {
  const states: string[] = [];
  const model = scripted(behaviour);
  const breaker = withBreaker(model, { ...breakerOptions(), ...options, onState: (state) => void states.push(state) });
  onTestFinished(() => breaker.close());
  return { breaker, model, states };
}

/** A breaker that has opened and waited: the next call is the probe. */
async function opened() {
  const all = guarded();
  for (let call = 0; call < MIN_CALLS; call++) await outcomeOf(all.breaker);
  await vi.advanceTimersByTimeAsync(RESET_MS);
  expect(all.states).toEqual(["closed", "open", "half_open"]);
  return all;
}
