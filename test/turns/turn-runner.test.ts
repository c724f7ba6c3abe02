import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { UsageSource } from "../../gen/parley/chat/v1/token_usage_pb.js";
import { createMemoryAccountStore } from "../../src/accounts/memory-account-store.ts";
import { createPriceTable } from "../../src/accounts/price-table.ts";
import { pricesYamlSchema, readPrices } from "../../src/accounts/prices-yaml.ts";
import type { Model } from "../../src/engine/model.ts";
import { Failure } from "../../src/failure.ts";
import { parseParleyYaml } from "../../src/parley-yaml.ts";
import { createMemoryStore } from "../../src/store/memory-store.ts";
import { fixedDefinitions } from "../../src/turns/definitions.ts";
import { NO_USAGE, type Store } from "../../src/turns/ports.ts";
import { NO_PAST } from "../../src/turns/turn-journal.ts";
import { type RunningTurn, TurnRunner } from "../../src/turns/turn-runner.ts";
import { begin, newTurn } from "../store/store-contract.ts";
import { eventually } from "../support/eventually.ts";

// How a process holds on to its turns, and lets go of them.

const defaults = { model: "gpt-4o", maxRounds: 20, baseUrl: "http://127.0.0.1:1/v1", apiKey: undefined };
const team = parseParleyYaml("", { fileName: "", defaults, tools: new Set(), env: {} }).value?.teams.get("assistant");

const LEASE_MS = 300;

let store: Store;
let runner: TurnRunner;
/** Lets the model answer a session's turn. */
let answer: (sessionId: string) => void;
beforeEach(() => {
  const answers = new Map<string, PromiseWithResolvers<void>>();
  const answerOf = (sessionId: string) => {
    const found = answers.get(sessionId) ?? Promise.withResolvers<void>();
    answers.set(sessionId, found);
    return found;
  };
  answer = (sessionId) => answerOf(sessionId).resolve();
  const model: Model = {
    async call({ model: name, messages }, { signal, onText }) {
      const gone = Promise.withResolvers<never>();
      signal.addEventListener("abort", () => gone.reject(signal.reason));
      signal.throwIfAborted();
      await Promise.race([answerOf(messages.at(-1)?.content ?? "").promise, gone.promise]);
      onText("done");
      const usage = { promptTokens: 1, completionTokens: 1, source: UsageSource.PROVIDER };
      return { model: name, text: "done", toolCalls: [], ended: "stop", usage };
    },
  };
  store = createMemoryStore({ ttlMs: 60_000, leaseMs: LEASE_MS });
  runner = new TurnRunner({
    store,
    definitions: fixedDefinitions({ teams: new Map(), defaultTeam: "", model, tools: new Map() }),
    accounts: createMemoryAccountStore(),
    prices: createPriceTable(readPrices(pricesYamlSchema.parse(undefined))),
    leaseMs: LEASE_MS,
    observer: {
      around: (_, work) => work(),
      tokensRecorded: () => undefined,
      guardrailTripped: () => undefined,
      turnEnded: () => undefined,
      turnLost: () => undefined,
      turnTakenOver: () => undefined,
      overHold: () => expect.unreachable("nothing is held"),
      unsettled: (_, error) => expect.unreachable(String(error)),
      unexpected: (_, error) => expect.unreachable(String(error)),
    },
  });
});
afterEach(() => store.close());

async function start(sessionId: string): Promise<RunningTurn> {
  const turn = { ...newTurn(sessionId), createSession: true };
  const { lease, window } = await begin(store, turn);
  if (team === undefined) return expect.unreachable();
  const { record } = turn;
  record.message = sessionId;
  record.maxTokens = 4_000;
  return runner.start({ lease, record, window, team, past: NO_PAST, usedBefore: NO_USAGE, unsettled: [] });
}

const ended = async ({ ref }: RunningTurn) => (await store.getTurn(ref))?.finishReason !== 0;

describe("a write that a process slept through", () => {
  it("is tried once more, so that readers hear what the store says now", async () => {
    const wokenMs = performance.now() + 3 * LEASE_MS;
    const answers = [
      async () => {
        await vi.waitFor(() => expect(performance.now()).toBeGreaterThan(wokenMs), { timeout: 5_000 });
        throw new Failure("STORE_UNAVAILABLE");
      },
      async () => {
        throw new Failure("LEASE_LOST");
      },
    ];
    vi.spyOn(store, "append").mockImplementation(() => (answers.shift() ?? expect.unreachable)());
    const turn = await start("s1");
    await vi.waitFor(() => expect(turn.lost.reason).toMatchObject({ reason: "LEASE_LOST" }), { timeout: 5_000 });
    expect(answers).toEqual([]);
  });

  it("is given up when the store has not answered for as long as the lease", async () => {
    vi.spyOn(store, "append").mockRejectedValue(new Failure("STORE_UNAVAILABLE"));
    const turn = await start("s1");
    await vi.waitFor(() => expect(turn.lost.reason).toMatchObject({ reason: "STORE_UNAVAILABLE" }), { timeout: 5_000 });
  });
});

describe("a runner that drains", () => {
  it("waits for its turns, those too that were being admitted when it began", async () => {
    const first = await start("s1");
    const drained = vi.fn();
    const draining = runner.drain(60_000).then(drained);
    const second = await start("s2");
    answer("s1");
    await eventually(async () => expect(await ended(first)).toBe(true));
    await eventually(() => expect(runner.inFlight).toBe(1));
    expect(drained).not.toHaveBeenCalled();
    answer("s2");
    await draining;
    expect(await ended(second)).toBe(true);
    for (const { lost } of [first, second]) expect(lost.aborted).toBe(false);
    expect(runner.inFlight).toBe(0);
  });

  it("gives up what has not ended by the deadline, and whatever begins after it", async () => {
    const slow = await start("s1");
    await runner.drain(10);
    const late = await start("s2");
    for (const turn of [slow, late]) {
      expect(turn.lost.reason).toMatchObject({ reason: "DRAINING" });
      expect(await ended(turn)).toBe(false);
    }
    await eventually(() => expect(runner.inFlight).toBe(0));
  });
});
