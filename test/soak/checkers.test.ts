import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { type StreamChatResponse, StreamChatResponseSchema } from "../../gen/parley/chat/v1/chat_service_pb.js";
import { MessageSchema } from "../../gen/parley/chat/v1/message_pb.js";
import { SessionSchema } from "../../gen/parley/chat/v1/session_pb.js";
import { UsageSource } from "../../gen/parley/chat/v1/token_usage_pb.js";
import { ToolOutcome } from "../../gen/parley/chat/v1/turn_event_pb.js";
import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import { type UsageRecord, UsageRecordSchema } from "../../gen/parley/usage/v1/usage_record_pb.js";
import type { TurnEvent } from "../../src/engine/turn.ts";
import { logEntry } from "../../src/turns/turn-log-writer.ts";
import { countersOf } from "../support/ledger.ts";
import { findViolations } from "./checkers.ts";
import type { MoneySeen, Observations, StoredTurn } from "./observations.ts";
import { toolResult } from "./recording-tools.ts";
import { messageOf, scheduleOf, type TurnAction } from "./schedule.ts";
import type { Property } from "./violation.ts";

// What went well is found to be well; one thing wrong in it is found, by the property that it violates.

const action = scheduleOf(1).actions.find(({ kind }) => kind === "turn") as TurnAction & { atMs: number };
const [turnId, sessionId, message] = ["t1", "s1", messageOf(action.name)];
const usage = { promptTokens: 1, completionTokens: 1, totalTokens: 2 };
const recorded: TurnEvent = {
  case: "usageRecorded",
  value: { tokenUsage: usage, usageSource: UsageSource.PROVIDER },
};
const tool = (name: string, toolCallId: string): TurnEvent[] => [
  { case: "toolCallStarted", value: { agent: "quick", tool: name, toolCallId } },
  {
    case: "toolCallCompleted",
    value: {
      agent: "quick",
      tool: name,
      toolCallId,
      outcome: ToolOutcome.OK,
      content: toolResult(name, `t1/${toolCallId}/1`),
    },
  },
];
const said = (agent: string, text: string, messageId: string): TurnEvent[] => [
  { case: "textDelta", value: { agent, text } },
  { case: "messageCompleted", value: { agent, content: text, messageId } },
  recorded,
];
const events: TurnEvent[] = [
  { case: "turnStarted", value: { turnId, sessionId } },
  { case: "agentStarted", value: { agent: "quick" } },
  recorded,
  ...tool("once", "2"),
  ...tool("again", "3"),
  ...said("quick", "piece", "t1.1"),
  { case: "agentStarted", value: { agent: "closer" } },
  ...said("closer", "bye", "t1.2"),
  {
    case: "turnCompleted",
    value: {
      finishReason: FinishReason.TERMINATED,
      tokenUsage: { promptTokens: 3, completionTokens: 3, totalTokens: 6 },
    },
  },
];
const prompts = [
  [{ role: "user", content: message }],
  [
    { role: "user", content: message },
    { role: "tool", content: "…" },
  ],
  [
    { role: "user", content: message },
    { role: "user", content: "piece" },
  ],
];

const charge = (call: number, init: MessageInitShape<typeof UsageRecordSchema> = {}): UsageRecord =>
  create(UsageRecordSchema, {
    recordId: `${turnId}/${call}/1.1`,
    turnId,
    tenant: "default",
    promptTokens: 1n,
    completionTokens: 1n,
    costMicroUsd: 90n,
    usageSource: UsageSource.PROVIDER,
    ...init,
  });
const rows = [charge(1), charge(4), charge(5)];
const correction = charge(1, {
  recordId: `${turnId}/1/1.1/correction-1`,
  correctsRecordId: `${turnId}/1/1.1`,
  promptTokens: 0n,
  completionTokens: 7n,
  usageSource: UsageSource.HOLD_MAXIMUM,
});

/** An account with these rows that adds up, but for what is said. */
function moneyOf(all: readonly UsageRecord[], change: Partial<MoneySeen> = {}): MoneySeen {
  const counters = [...countersOf(all)].map(
    ([name, spent]) => [name, { ...spent, heldCost: 0n, heldTokens: 0n }] as const,
  );
  return { rows: all, counters: new Map(counters), held: [], capTokens: 100, overCap: [], ...change };
}

/** A turn that went well, with something done to its events. */
function observed(change: (events: TurnEvent[]) => TurnEvent[] = (all) => all): Observations & { turn: StoredTurn } {
  const log = change(events).map((event, index) => logEntry(BigInt(index + 1), event));
  const responses: StreamChatResponse[] = events.map((event, index) =>
    create(StreamChatResponseSchema, { sequence: BigInt(index + 1), event }),
  );
  const stored = log.flatMap(({ event }) => event ?? []);
  const turn: StoredTurn = {
    turnId,
    sessionId,
    message,
    finishReason: FinishReason.TERMINATED,
    takeovers: 0,
    log,
    replays: [stored],
  };
  return {
    turn,
    schedule: { seed: 1, sessions: [sessionId], useCase: "spend-1", actions: [action] },
    clients: {
      readings: [
        {
          action,
          how: "stream on 0",
          turnId,
          afterSequence: 0n,
          events: responses.map((event) => ({ event, atMs: 1_000 })),
          end: "ended",
        },
      ],
      replies: [{ action, turnId, response: "bye", finishReason: FinishReason.TERMINATED, totalTokens: 6 }],
      cancels: [],
      deletes: new Map(),
      complaints: [],
      retries: 0,
      resumes: 0,
    },
    turns: [turn],
    sessions: [
      {
        session: create(SessionSchema, { sessionId, messageCount: 3n, tokenUsage: { totalTokens: 6 } }),
        messages: [
          { agent: "", content: message },
          { agent: "quick", content: "piece" },
          { agent: "closer", content: "bye" },
        ].map((one) => create(MessageSchema, { ...one, turnId })),
        leaseOf: "",
      },
    ],
    account: {
      immortalKeys: [],
      sessionsOfKeys: new Set([sessionId]),
      leases: [],
      gauges: [1],
      active: new Set([sessionId]),
      unended: [],
    },
    money: moneyOf(rows),
    calls: prompts.map((messages) => ({
      model: "m",
      messages,
      body: { max_completion_tokens: 5 },
      arrivedMs: 10,
      promptTokens: 1,
      completionTokens: 1,
      state: "answered",
      replica: 0,
    })),
    crashes: [],
    record: [
      { kind: "owner", turnId, epoch: 1, replica: 0, takeover: false, atMs: 1 },
      { kind: "tool", tool: "once", id: "t1/2/1", atMs: 2 },
      { kind: "tool", tool: "again", id: "t1/3/1", atMs: 3 },
    ],
  };
}

const propertiesOf = (seen: Observations): Set<Property> =>
  new Set(findViolations(seen).map(({ property }) => property));

test("a turn that went well violates nothing", () => {
  expect(findViolations(observed())).toEqual([]);
});

const well = observed();
const [reading] = well.clients.readings as [(typeof well.clients.readings)[0]];
const [session] = well.sessions as [(typeof well.sessions)[0]];
const [firstCall] = well.calls as [(typeof well.calls)[0]];
const withReading = (change: Partial<typeof reading>): Observations => ({
  ...well,
  clients: { ...well.clients, readings: [{ ...reading, ...change }] },
});
const withTurn = (change: Partial<StoredTurn>): Observations => ({ ...well, turns: [{ ...well.turn, ...change }] });

test.for<[string, Property, Observations]>([
  ["a reader misses an event", "gap", withReading({ events: reading.events.toSpliced(3, 1) })],
  [
    "a reader gets one twice",
    "duplicate",
    withReading({ events: reading.events.toSpliced(3, 0, reading.events[2] as never) }),
  ],
  ["the log has lost the end that a reader saw", "unsaid", observed((all) => all.toSpliced(-2, 1))],
  ["a replay lacks an event", "unsaid", withTurn({ replays: [[]] })],
  ["a log misses a sequence", "gap", withTurn({ log: well.turn.log.toSpliced(4, 1) })],
  ["a log has no end", "terminal", observed((all) => all.slice(0, -1))],
  ["a log has two ends", "terminal", observed((all) => [...all, ...all.slice(-1)])],
  ["a stream ends well before its end", "terminal", withReading({ events: reading.events.slice(0, 4) })],
  ["a delta is lost", "text", observed((all) => all.filter(({ case: kind }) => kind !== "textDelta"))],
  [
    "text is voided and completed all the same",
    "text",
    observed((all) => all.toSpliced(-3, 0, { case: "stepRestarted", value: { discardTextAfterSequence: 1n } })),
  ],
  [
    "a message stands in the log twice",
    "duplicate",
    observed((all) => [...all.slice(0, -1), ...said("closer", "bye", "t1.2"), ...all.slice(-1)]),
  ],
  [
    "a reply is another",
    "reply",
    {
      ...well,
      clients: {
        ...well.clients,
        replies: [{ ...(well.clients.replies[0] as never as object), response: "hm" } as never],
      },
    },
  ],
  [
    "a history entry is there twice",
    "duplicate",
    { ...well, sessions: [{ ...session, messages: [...session.messages, ...session.messages.slice(-1)] }] },
  ],
  ["a turn is not in the history", "history", { ...well, sessions: [{ ...session, messages: [] }] }],
  [
    "a model was told what is in no history",
    "history",
    {
      ...well,
      calls: [
        { ...firstCall, messages: [{ role: "assistant", content: "hm" }, ...firstCall.messages] },
        ...well.calls.slice(1),
      ],
    },
  ],
  [
    "a call is made after its end was seen",
    "repeated call",
    {
      ...well,
      turns: [{ ...well.turn, takeovers: 1 }],
      calls: [...well.calls, { ...firstCall, arrivedMs: 2_000, replica: 1 }],
      record: [...well.record, { kind: "owner", turnId, epoch: 2, replica: 1, takeover: true, atMs: 1_500 }],
    },
  ],
  ["there are more calls than takeovers explain", "model calls", { ...well, calls: [...well.calls, firstCall] }],
  ["a record is of no call", "model calls", { ...well, calls: well.calls.slice(1) }],
  [
    "a record is of no call, and no owner was lost amid it",
    "model calls",
    { ...well, turns: [{ ...well.turn, takeovers: 1 }], calls: well.calls.slice(1) },
  ],
  [
    "a tool that is not idempotent runs twice",
    "tool",
    { ...well, record: [...well.record, { kind: "tool", tool: "once", id: "t1/2/1", atMs: 9 }] },
  ],
  ["a tool's result is of no run", "tool", { ...well, record: well.record.slice(0, -1) }],
  [
    "a key is two turns",
    "key",
    { ...well, clients: { ...well.clients, readings: [reading, { ...reading, turnId: "t2" }] } },
  ],
  ["a turn ends without a reason", "end", withTurn({ finishReason: FinishReason.CANCELLED })],
  [
    "a cancel lets the turn go on",
    "cancel",
    { ...well, clients: { ...well.clients, cancels: [{ turnId, lastSequence: 1n }] } },
  ],
  [
    "usage does not add up",
    "usage",
    { ...well, sessions: [{ ...session, session: create(SessionSchema, { sessionId, messageCount: 3n }) }] },
  ],
  ["a call has no charge", "bill", { ...well, money: moneyOf(rows.slice(1)) }],
  ["a call is charged twice", "bill", { ...well, money: moneyOf([...rows, charge(1, { recordId: "again" })]) }],
  [
    "a charge is not the provider's count",
    "bill",
    { ...well, money: moneyOf([...rows.slice(1), charge(1, { promptTokens: 2n })]) },
  ],
  ["a charge is more than its hold", "bill", { ...well, money: moneyOf([...rows, correction]) }],
  ["the counters have more than the ledger", "bill", { ...well, money: { ...well.money, rows: rows.slice(0, 2) } }],
  ["a call is held for ever", "bill", { ...well, money: { ...well.money, held: ["t1/1/1.1"] } }],
  [
    "an amount is held for ever",
    "bill",
    {
      ...well,
      money: moneyOf(rows, {
        counters: new Map([...well.money.counters].map(([name, use]) => [name, { ...use, heldTokens: 1n }])),
      }),
    },
  ],
  ["a cap is crossed for a while", "cap", { ...well, money: { ...well.money, overCap: ["hm"] } }],
  [
    "a cap is crossed in the end",
    "cap",
    {
      ...well,
      money: moneyOf([...rows, charge(1, { recordId: "x", turnId: "t2", useCase: "spend-1", promptTokens: 100n })]),
    },
  ],
  ["a turn has not ended", "liveness", { ...well, account: { ...well.account, unended: [turnId] } }],
  ["a replica crashes", "liveness", { ...well, crashes: ["hm"] }],
  ["a client was told of a defect", "liveness", { ...well, clients: { ...well.clients, complaints: ["hm"] } }],
  ["a key never ends", "storage", { ...well, account: { ...well.account, immortalKeys: ["k"] } }],
  ["a lease is left", "storage", { ...well, sessions: [{ ...session, leaseOf: turnId }] }],
  ["the list of leases is not empty", "storage", { ...well, account: { ...well.account, leases: [turnId] } }],
  ["a gauge is wrong", "storage", { ...well, account: { ...well.account, gauges: [2] } }],
  ["a session does not count", "storage", { ...well, account: { ...well.account, active: new Set(), gauges: [0] } }],
  [
    "a deleted session has keys",
    "storage",
    { ...well, clients: { ...well.clients, deletes: new Map([[sessionId, true]]) } },
  ],
])("%s: %s", ([, property, seen]) => {
  expect(propertiesOf(seen)).toContain(property);
});

test("a call of an owner that woke up amid it is told apart", () => {
  const seen: Observations = {
    ...well,
    turns: [{ ...well.turn, takeovers: 1 }],
    calls: [...well.calls, { ...firstCall, arrivedMs: 2_000 }],
    // Whoever made it has paid for it.
    money: moneyOf([...rows, charge(1, { recordId: `${turnId}/1/2.1` })]),
  };
  expect(propertiesOf(seen)).toEqual(new Set());
});

test("the charge of a lost owner may be of a request that has never left", () => {
  const charged: TurnEvent = { case: "usageRecorded", value: { usageSource: UsageSource.HOLD_MAXIMUM } };
  const seen = observed(([started, agent, ...rest]) => [started, agent, charged, ...rest] as TurnEvent[]);
  const lost = (takeovers: number): Observations => ({ ...seen, turns: [{ ...seen.turn, takeovers }] });
  expect(propertiesOf(lost(1))).not.toContain("model calls");
  expect(propertiesOf(lost(0))).toContain("model calls");
});

test("a whole call is charged once more where its owner was lost before it said so in the log, and only there", () => {
  const seen = observed(([started, agent, ...rest]) => [started, agent, recorded, ...rest] as TurnEvent[]);
  const lost = (takeovers: number): Observations => ({ ...seen, turns: [{ ...seen.turn, takeovers }] });
  expect(propertiesOf(lost(1))).not.toContain("repeated call");
  expect(propertiesOf(lost(0))).toContain("repeated call");
});
