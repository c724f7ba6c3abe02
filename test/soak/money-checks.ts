import { UsageSource } from "../../gen/parley/chat/v1/token_usage_pb.js";
import type { UsageRecord } from "../../gen/parley/usage/v1/usage_record_pb.js";
import { chargesOf, countersOf } from "../support/ledger.ts";
import { turnMessageOf } from "./call-checks.ts";
import { describe } from "./log-checks.ts";
import type { Observations, StoredTurn } from "./observations.ts";
import type { Violation } from "./violation.ts";
import type { ReplicaCall } from "./world.ts";

/** Ledger, counters and the models' own books are the same, and nothing is held when all is over. */
export function checkBill({ money, turns, calls, account }: Observations): Violation[] {
  const sums = countersOf(money.rows);
  const counted = [...new Set([...sums.keys(), ...money.counters.keys()])].flatMap((name) => {
    const { cost, tokens } = sums.get(name) ?? { cost: 0n, tokens: 0n };
    const counter = money.counters.get(name) ?? { cost: 0n, tokens: 0n, heldCost: 0n, heldTokens: 0n };
    const wrong: string[] = [];
    if (counter.cost !== cost || counter.tokens !== tokens)
      wrong.push(`${name} has spent ${counter.cost} and ${counter.tokens} tokens, its rows ${cost} and ${tokens}`);
    if (counter.heldCost !== 0n || counter.heldTokens !== 0n)
      wrong.push(`${name} holds ${counter.heldCost} and ${counter.heldTokens} tokens`);
    return wrong;
  });
  const charges = Map.groupBy(chargesOf(money.rows), ({ turnId }) => turnId);
  const made = Map.groupBy(calls, turnMessageOf);
  const ended = turns.filter(({ turnId }) => !account.unended.includes(turnId));
  return [
    ...money.held.map((callId) => `${callId} is held`),
    ...counted,
    ...ended.flatMap((turn) => wrongOfTurn(turn, charges.get(turn.turnId) ?? [], made.get(turn.message) ?? [])),
  ].map((detail) => ({ property: "bill", detail }));
}

/** A turn's charges against the calls that models saw of it. */
function wrongOfTurn(turn: StoredTurn, charges: readonly UsageRecord[], calls: readonly ReplicaCall[]): string[] {
  const wrong: string[] = [];
  if (charges.length < calls.length) wrong.push(`${calls.length} calls and ${charges.length} charges`);
  // The provider's own counts, call by call.
  const answered = calls.filter(({ state }) => state === "answered").map(countsOf);
  for (const charge of charges) {
    if (charge.usageSource === UsageSource.PROVIDER) {
      const index = answered.indexOf(`${charge.promptTokens} ${charge.completionTokens}`);
      if (index < 0) wrong.push(`${charge.recordId} has counts that no model has`);
      else answered.splice(index, 1);
    }
  }
  // A charge of no call: its request was ended, or its owner lost, as it was to be sent.
  const firm = charges.filter(({ usageSource }) => usageSource === UsageSource.PROVIDER).length;
  if (firm > calls.length) wrong.push(`${firm} charges of the provider for ${calls.length} calls`);
  const bounds = calls.map(({ body }) => Number(body.max_completion_tokens));
  const bound = calls.length === 0 ? Number.POSITIVE_INFINITY : Math.max(...bounds);
  const beyond = charges.filter(({ completionTokens }) => Number(completionTokens) > bound);
  for (const { recordId } of beyond) wrong.push(`${recordId} is more than was held`);
  // Every row that a reader was told of is charged.
  const charged = new Set(charges.map(({ recordId }) => recordId));
  for (const { usageRecord } of turn.log) {
    if (usageRecord !== undefined && !charged.has(usageRecord.recordId))
      wrong.push(`${usageRecord.recordId} is in the log and not charged`);
  }
  return wrong.map((detail) => `${describe(turn)}: ${detail}`);
}

function countsOf({ promptTokens, completionTokens }: ReplicaCall): string {
  return `${promptTokens} ${completionTokens}`;
}

/** What is spent and held of a budget together is never more than it. */
export function checkCaps({ money, schedule }: Observations): Violation[] {
  const ofSpenders = countersOf(money.rows.filter(({ useCase }) => useCase === schedule.useCase));
  const spent = [...ofSpenders]
    .filter(([name]) => name.startsWith("hour:") && name.endsWith(`:use_case:${schedule.useCase}`))
    .filter(([, { tokens }]) => tokens > BigInt(money.capTokens))
    .map(([name, { tokens }]) => `${name} has rows of ${tokens} tokens, more than ${money.capTokens}`);
  return [...money.overCap, ...spent].map((detail) => ({ property: "cap", detail }));
}
