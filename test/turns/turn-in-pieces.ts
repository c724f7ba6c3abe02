import { create } from "@bufbuild/protobuf";
import { expect, vi } from "vitest";
import { UsageSource } from "../../gen/parley/chat/v1/token_usage_pb.js";
import type { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import type { TurnLogEntry } from "../../gen/parley/storage/v1/turn_log_pb.js";
import { TurnRecordSchema } from "../../gen/parley/storage/v1/turn_record_pb.js";
import { CallOutcome, type UsageRecord } from "../../gen/parley/usage/v1/usage_record_pb.js";
import type { AccountStore } from "../../src/accounts/account-store.ts";
import { createMemoryAccountStore } from "../../src/accounts/memory-account-store.ts";
import { createPriceTable } from "../../src/accounts/price-table.ts";
import { pricesYamlSchema, readPrices } from "../../src/accounts/prices-yaml.ts";
import type { Model, ModelMessage } from "../../src/engine/model.ts";
import type { TeamDefinition } from "../../src/engine/team.ts";
import type { Tool } from "../../src/engine/tool.ts";
import { Failure } from "../../src/failure.ts";
import { createMemoryStore } from "../../src/store/memory-store.ts";
import { startLostCalls } from "../../src/turns/lost-calls.ts";
import { NO_USAGE, type StopReason, type TurnStore } from "../../src/turns/ports.ts";
import { type BegunTurn, executeTurn } from "../../src/turns/turn-execution.ts";
import { NO_PAST } from "../../src/turns/turn-journal.ts";
import { logEntry } from "../../src/turns/turn-log-writer.ts";
import { resumedTurn } from "../../src/turns/turn-takeover.ts";
import { begin, newTurn } from "../store/store-contract.ts";
import { chargesOf, ledgerOf } from "../support/ledger.ts";

/** What the model says in one call. */
export interface Line {
  readonly pieces: readonly string[];
  /** Names of the tools that it asks for. */
  readonly calls: readonly string[];
}

/** Where an owner dies: at which of its writes, and whether that one was still written. */
export interface Cut {
  readonly write: number;
  readonly written: boolean;
  /** Whether it lives on, having lost its lease, and settles the calls that it knows the end of. */
  readonly settles: boolean;
}

/** A conversation: who takes part, and what the model says, call by call. */
export interface Play {
  readonly team: TeamDefinition;
  readonly lines: readonly Line[];
}

const LEASE_MS = 10_000;
const CALL_TIMEOUT_MS = 60_000;
/** A call that nobody settled is lost by then. */
const LOST_CALL_MS = 2 * CALL_TIMEOUT_MS;
const TOOL_NAMES = ["idempotent", "once"] as const;

/** Runs one turn by owners that die one after the other, and the last one to its end. */
export async function runInPieces(
  { team, lines }: Play,
  {
    cuts,
    turnId,
    known = new Map(),
    stopBefore,
    stopAt,
    lostAnswers = [],
  }: {
    cuts: readonly Cut[];
    turnId: string;
    /** What the model says to which prompt; filled where it is empty. */
    known?: Map<string, Line>;
    /** Somebody wants the turn to end when the first owner has died. */
    stopBefore?: StopReason;
    /** Somebody wants it to end just before an owner's write. */
    stopAt?: { readonly owner: number; readonly write: number; readonly reason: StopReason };
    /** Writes, counted over all owners, that are made and whose answers are lost. */
    lostAnswers?: readonly number[];
  },
) {
  let clockMs = 1_000_000;
  const store = createMemoryStore({ ttlMs: 3_600_000, leaseMs: LEASE_MS, now: () => clockMs });
  const accounts = createMemoryAccountStore({ now: () => clockMs });
  const isScript = known.size === 0;
  /** Prompts and tool calls of each owner. */
  const owners: { prompts: string[]; tools: string[]; finished: { models: number; tools: number } }[] = [];
  const current = () => owners.at(-1) ?? expect.unreachable();

  /** Sequence of the newest entry when somebody wanted the end. */
  let stoppedAfter: bigint | undefined;
  const stop = async (reason: StopReason): Promise<void> => {
    stoppedAfter = (await store.stopTurn(lease, reason))?.lastSequence;
  };
  let writes = 0;
  /** Stores that are lost to their owner from a write on; the turns' may lose answers. */
  const mortal = (cut: Cut | undefined): { store: TurnStore; accounts: AccountStore } => {
    const owner = owners.length - 1;
    let ownWrites = 0;
    let dead = false;
    const write = async <T>(make: () => Promise<T>): Promise<T> => {
      if (dead) throw new Failure("LEASE_LOST");
      ownWrites++;
      writes++;
      if (stopAt?.owner === owner && stopAt.write === ownWrites) await stop(stopAt.reason);
      if (ownWrites !== cut?.write) {
        const result = await make();
        if (lostAnswers.includes(writes)) throw new Failure("STORE_UNAVAILABLE");
        return result;
      }
      dead = true;
      if (cut.written) await make();
      throw new Failure("LEASE_LOST");
    };
    const mortalStore: TurnStore = {
      ...store,
      append: (...args) => write(() => store.append(...args)),
      commitTurn: (...args) => write(() => store.commitTurn(...args)),
      renewLease: async (held) => (dead ? Promise.reject(new Failure("LEASE_LOST")) : await store.renewLease(held)),
    };
    if (cut?.settles === true) return { store: mortalStore, accounts };
    const ofTheLiving =
      <Args extends unknown[], T>(step: (...args: Args) => Promise<T>) =>
      (...args: Args): Promise<T> =>
        dead ? Promise.reject(new Failure("LEASE_LOST")) : step(...args);
    return {
      store: mortalStore,
      accounts: {
        ...accounts,
        hold: ofTheLiving(accounts.hold),
        start: ofTheLiving(accounts.start),
        // The dead say nothing more, not that they could not either.
        settle: async (record) => (dead ? { state: "forgotten" } : accounts.settle(record)),
        release: async (...args) => (dead ? undefined : accounts.release(...args)),
      },
    };
  };

  const model: Model = {
    async call({ model: name, messages }, { signal, onText, onAttempt, beforeAttempt }) {
      const prompt = keyOf(name, messages);
      await beforeAttempt({ model: name, promptTokens: 10, maxOutputTokens: 100, timeoutMs: CALL_TIMEOUT_MS });
      if (isScript) known.set(prompt, lines[Math.min(known.size, lines.length - 1)] ?? expect.unreachable());
      current().prompts.push(prompt);
      const line = known.get(prompt) ?? expect.fail("the team asks what it did not ask in one piece");
      const usage = { promptTokens: 10, completionTokens: 3, source: UsageSource.PROVIDER };
      for (const piece of line.pieces) {
        if (signal.aborted) {
          onAttempt({ model: name, outcome: "cancelled", usage });
          throw new Failure("CALL_CANCELLED");
        }
        onText(piece);
        await soon();
      }
      onAttempt({ model: name, outcome: "ok", usage });
      const toolCalls = line.calls.map((tool, index) => ({ id: `c${index}`, name: tool, argumentsJson: "{}" }));
      const text = line.pieces.join("");
      return { model: name, text, toolCalls, ended: toolCalls.length > 0 ? "tool_calls" : "stop", usage };
    },
  };
  const tools = new Map(
    TOOL_NAMES.map((name): [string, Tool] => [
      name,
      {
        name,
        description: name,
        parameters: {},
        idempotent: name === "idempotent",
        async call(_, { id }) {
          current().tools.push(`${name} ${id}`);
          await soon();
          return `${name} did it`;
        },
      },
    ]),
  );

  const run = async (turn: BegunTurn, cut: Cut | undefined): Promise<void> => {
    const { steps } = turn.past;
    owners.push({
      prompts: [],
      tools: [],
      finished: {
        models: steps.filter(({ step }) => step.case === "model").length,
        tools: steps.filter(({ step }) => step.case === "tool").length,
      },
    });
    const ports = {
      ...mortal(cut),
      model,
      tools,
      prices: createPriceTable(readPrices(pricesYamlSchema.parse(undefined))),
      teams: new Map(),
      leaseMs: LEASE_MS,
      observer: {
        around: (
          _: BegunTurn,
          work: () => ReturnType<Parameters<typeof executeTurn>[1]["ports"]["observer"]["around"]>,
        ) => work(),
        tokensRecorded: () => undefined,
        guardrailTripped: () => undefined,
        turnEnded: () => undefined,
        turnLost: () => undefined,
        turnTakenOver: () => undefined,
        overHold: () => expect.fail("no call uses more than was held"),
        unsettled: (_: BegunTurn, error: unknown) => expect.fail(`unsettled: ${String(error)}`),
        unexpected: (_: BegunTurn, error: unknown) => expect.fail(`unexpected: ${String(error)}`),
      },
    };
    await executeTurn(turn, { ports, stop: new AbortController(), lost: new AbortController() });
  };

  const firstEntry = logEntry(1n, { case: "turnStarted", value: { sessionId: "s1", turnId } });
  const asked = { ...newTurn("s1"), turnId, firstEntry, createSession: true, nonce: "first" };
  asked.record = create(TurnRecordSchema, {
    ...asked.record,
    message: "go",
    maxTokens: 1_000_000,
    agentTeam: team.name,
    agentTeamJson: JSON.stringify(team),
  });
  const { lease, window } = await begin(store, asked);
  await run({ lease, window, record: asked.record, team, past: NO_PAST, usedBefore: NO_USAGE, unsettled: [] }, cuts[0]);
  for (let next = 1; ; next++) {
    clockMs += LEASE_MS + 1;
    if (next === 1 && stopBefore !== undefined) await stop(stopBefore);
    const [claimed] = await store.claimTurns(1);
    if (claimed === undefined) break;
    await run(await resumedTurn(claimed, { store, teams: new Map() }), cuts[next]);
  }
  const log = (await store.readLog(lease, 0n, 10_000)) ?? [];
  const turn = (await store.getTurn(lease)) ?? expect.fail("the turn is gone");
  const messages = (await store.listMessages(lease, { offset: 0, limit: 1_000 })) ?? [];
  // An owner that died when the turn had ended is missed by nobody but those who look for lost calls.
  clockMs += LOST_CALL_MS;
  const lostCalls = startLostCalls({ accounts, store, onError: (error) => expect.fail(String(error)) });
  await lostCalls.stop();
  const charges = chargesOf(await ledgerOf(accounts, lease.tenant));
  await store.close();
  return { charges, log, turn, messages, owners, known, stoppedAfter };
}

/**
 * Fails where the bill is not that of the calls that were made: a charge for each, each told once in the log, and nothing else.
 * A call that was lost with its owner is charged in full.
 */
export function expectBilled({ charges, log, owners }: Awaited<ReturnType<typeof runInPieces>>): void {
  expect(charges).toHaveLength(owners.reduce((sum, { prompts }) => sum + prompts.length, 0));
  const told = log.flatMap(({ usageRecord }) => (usageRecord === undefined ? [] : [usageRecord]));
  const events = log.flatMap(({ event }) => (event?.event.case === "usageRecorded" ? [event.event.value] : []));
  const byId = (row: UsageRecord) => row.recordId;
  expect(told.map(byId).toSorted()).toEqual(charges.map(byId).toSorted());
  for (const [index, row] of told.entries()) {
    const { promptTokens, completionTokens, usageSource, costMicroUsd, outcome } = row;
    const same = { promptTokens, completionTokens, usageSource, costMicroUsd, outcome };
    expect(charges.find(({ recordId }) => recordId === row.recordId)).toMatchObject(same);
    expect(events[index]).toMatchObject({ usageSource, costMicroUsd });
    expect(costMicroUsd).toBeGreaterThan(0n);
    const isLost = usageSource === UsageSource.HOLD_MAXIMUM;
    expect([promptTokens, completionTokens]).toEqual(isLost ? [10n, 100n] : [10n, 3n]);
    expect(outcome === CallOutcome.LOST).toBe(isLost);
  }
}

/** A prompt, but for what tools said: that may be unknown. */
function keyOf(model: string, messages: readonly ModelMessage[]): string {
  return JSON.stringify([
    model,
    messages.map((message) => ({ ...message, ...(message.role === "tool" ? { content: "" } : {}) })),
  ]);
}

/** Long enough for an append to be made. */
async function soon(): Promise<void> {
  await vi.advanceTimersByTimeAsync(26);
  await new Promise((resolve) => setImmediate(resolve));
}

/** Events in order, without text that is void, and neighbouring deltas as one. */
export function standing(log: readonly TurnLogEntry[]) {
  const events: { sequence: bigint; case: string; value: Readonly<Record<string, unknown>> }[] = [];
  for (const { event } of log) {
    if (event?.event.case === undefined) continue;
    const { sequence } = event;
    if (event.event.case === "stepRestarted") {
      const { discardTextAfterSequence } = event.event.value;
      const kept = events.filter((one) => one.case !== "textDelta" || one.sequence <= discardTextAfterSequence);
      events.splice(0, events.length, ...kept);
    } else {
      events.push({ sequence, case: event.event.case, value: { ...event.event.value } });
    }
  }
  const merged: { case: string; value: Readonly<Record<string, unknown>> }[] = [];
  for (const { case: name, value } of events) {
    const last = merged.at(-1);
    if (name === "textDelta" && last?.case === "textDelta" && last.value.agent === value.agent) {
      merged[merged.length - 1] = { case: name, value: { ...value, text: `${last.value.text}${value.text}` } };
    } else {
      merged.push({ case: name, value });
    }
  }
  return merged;
}

/** Fails where a log is no turn's: a gap, a duplicate, no end or two, text that no message says, usage that does not add up. */
export function expectWhole(log: readonly TurnLogEntry[], finishReason: FinishReason): void {
  expect(log.map(({ event }) => event?.sequence)).toEqual(log.map((_, index) => BigInt(index + 1)));
  const ends = log.flatMap(({ event }, index) => (event?.event.case === "turnCompleted" ? [index] : []));
  expect(ends).toEqual([log.length - 1]);
  const events = standing(log);
  let text = "";
  for (const { case: name, value } of events) {
    if (name === "textDelta") text += value.text;
    if (name !== "messageCompleted") continue;
    expect(text).toBe(value.content);
    text = "";
  }
  expect(text).toBe("");
  let [promptTokens, completionTokens] = [0, 0];
  for (const { event } of log) {
    if (event?.event.case !== "usageRecorded") continue;
    promptTokens += event.event.value.tokenUsage?.promptTokens ?? 0;
    completionTokens += event.event.value.tokenUsage?.completionTokens ?? 0;
  }
  expect(events.at(-1)?.value).toMatchObject({ finishReason, tokenUsage: { promptTokens, completionTokens } });
}
