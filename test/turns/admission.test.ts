import { afterEach, beforeEach, expect, it } from "vitest";
import { createMemoryAccountStore } from "../../src/accounts/memory-account-store.ts";
import { createPriceTable } from "../../src/accounts/price-table.ts";
import { pricesYamlSchema, readPrices } from "../../src/accounts/prices-yaml.ts";
import type { TeamDefinition } from "../../src/engine/team.ts";
import { Failure } from "../../src/failure.ts";
import { createMemoryStore } from "../../src/store/memory-store.ts";
import { type AdmissionPorts, admitTurn, type TurnRequest } from "../../src/turns/admission.ts";
import { fixedDefinitions } from "../../src/turns/definitions.ts";
import type { Store } from "../../src/turns/ports.ts";
import { TurnRunner } from "../../src/turns/turn-runner.ts";
import { TEAM } from "../engine/scripted-turn.ts";
import { begin, newTurn } from "../store/store-contract.ts";

// What becomes of a request that waits for a session, or ends the session's running turn.

const teams: ReadonlyMap<string, TeamDefinition> = new Map([["assistant", TEAM]]);
const REQUEST: TurnRequest = {
  tenant: "acme",
  team: "",
  userId: "ann",
  sessionId: "s1",
  message: "hello",
  agentTeam: "",
  useCase: "",
  maxTokens: 0,
  idempotencyKey: "",
  onBusy: "interrupt",
  endsWithCall: false,
};

const definitions = fixedDefinitions({
  teams,
  defaultTeam: "assistant",
  model: { call: () => Promise.reject(new Failure("MODEL_UNAVAILABLE")) },
  tools: new Map(),
});

let store: Store;
let runner: TurnRunner;
let ports: AdmissionPorts;
beforeEach(() => {
  store = createMemoryStore({ ttlMs: 60_000, leaseMs: 10_000 });
  runner = new TurnRunner({
    store,
    definitions,
    accounts: createMemoryAccountStore(),
    prices: createPriceTable(readPrices(pricesYamlSchema.parse(undefined))),
    leaseMs: 10_000,
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
  ports = {
    store,
    runner,
    rateLimiter: { consume: async () => ({ limit: 1, remaining: 1, resetMs: 1 }), peek: async () => undefined },
    definitions,
    release: { version: "1", track: "stable" },
    maxTokens: 4_000,
    draining: () => false,
    queueChanged: () => undefined,
  };
});
afterEach(() => store.close());

const admit = (request: Partial<TurnRequest> = {}, signal = new AbortController().signal) =>
  admitTurn({ ...REQUEST, ...request }, { ports, signal });

it("ends a running turn of a lost owner, and then begins", async () => {
  const running = { ...newTurn("s1"), createSession: true };
  await begin(store, running);
  const { value } = await admit().next();
  expect(value).toMatchObject({ begun: { firstEntry: { event: { sequence: 1n } } } });
  expect(await store.getTurn(running)).toMatchObject({ lastSequence: 2n });
  await runner.drain(5_000);
});

it("gives up when its process goes away before the running turn's end is written, and leaves no place behind", async () => {
  const running = { ...newTurn("s1"), createSession: true };
  await begin(store, running);
  await runner.drain(0);
  await expect(admit().next()).rejects.toMatchObject({ reason: "DRAINING" });
  // Whoever looks finds the turn, with the reason for its end.
  const [claimed] = await store.claimTurns(1);
  expect(claimed).toMatchObject({ lease: { turnId: running.turnId } });
  expect(claimed?.stop).toBeDefined();
  expect(await store.beginTurn(newTurn("s1"))).toEqual({ state: "queued", position: 1 });
});

it("gives up its place when its caller goes away", async () => {
  await begin(store, { ...newTurn("s1"), createSession: true });
  const gone = new AbortController();
  const admission = admit({ onBusy: "enqueue" }, gone.signal);
  expect((await admission.next()).value).toBe(1);
  const next = admission.next();
  gone.abort(new Error("gone"));
  await expect(next).rejects.toThrow("gone");
  expect(await store.beginTurn(newTurn("s1"))).toEqual({ state: "queued", position: 1 });
});

it("frees a key whose turn was refused, and keeps one whose turn may have begun", async () => {
  const claim = { tenant: "acme", userId: "ann", key: "k1", requestHash: "other", turnId: "t" };
  await expect(admit({ idempotencyKey: "k1", sessionId: "none" }).next()).rejects.toMatchObject({
    reason: "SESSION_NOT_FOUND",
  });
  expect((await store.claimKey(claim)).state).toBe("new");
  await store.releaseKey(claim);
  const { beginTurn } = store;
  store.beginTurn = () => Promise.reject(new Failure("STORE_UNAVAILABLE"));
  await expect(admit({ idempotencyKey: "k1", sessionId: "" }).next()).rejects.toMatchObject({
    reason: "STORE_UNAVAILABLE",
  });
  store.beginTurn = beginTurn;
  expect((await store.claimKey(claim)).state).toBe("admitted");
});
