import { UsageSource } from "../../gen/parley/chat/v1/token_usage_pb.js";
import { ToolOutcome } from "../../gen/parley/chat/v1/turn_event_pb.js";
import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import { describe, eventsOf } from "./log-checks.ts";
import type { Observations, StoredTurn } from "./observations.ts";
import type { OwnerLine, ToolLine } from "./record.ts";
import { toolResult } from "./recording-tools.ts";
import { messageOf } from "./schedule.ts";
import type { Violation } from "./violation.ts";
import type { ReplicaCall } from "./world.ts";

/** Model calls that a turn makes which nobody stops. */
const CALLS_OF_A_WHOLE_TURN = 3;

/** The model's books against the logs. */
export function checkModelCalls(seen: Observations): Violation[] {
  const callsOf = Map.groupBy(seen.calls, turnMessageOf);
  return seen.turns
    .filter(({ turnId }) => !seen.account.unended.includes(turnId))
    .flatMap((turn) => {
      const made = callsOf.get(turn.message)?.length ?? 0;
      const records = eventsOf(turn).flatMap(({ event }) => (event.case === "usageRecorded" ? [event.value] : []));
      const violations: Violation[] = [];
      // Nobody knows whether a request that was ended, or whose owner was lost, as it was sent has arrived: it is recorded.
      const held = records.filter(({ usageSource }) => usageSource === UsageSource.HOLD_MAXIMUM).length;
      const ended = turn.finishReason === FinishReason.TERMINATED ? 0 : 1;
      const mayBeUnsent = ended + Math.min(turn.takeovers, held);
      if (records.length - mayBeUnsent > made || made > records.length + turn.takeovers) {
        violations.push({
          property: "model calls",
          detail: `${describe(turn)} has ${records.length} records of ${made} calls`,
        });
      }
      const paid = records.filter(({ usageSource }) => usageSource === UsageSource.PROVIDER).length;
      // An owner that is lost between a call's charge and its end in the log leaves the charge; the call is made again.
      const most = CALLS_OF_A_WHOLE_TURN + turn.takeovers;
      const least = turn.finishReason === FinishReason.TERMINATED ? CALLS_OF_A_WHOLE_TURN : 0;
      if (paid < least || paid > most) {
        violations.push({ property: "repeated call", detail: `${describe(turn)} has ${paid} whole calls in its log` });
      }
      return violations;
    });
}

/** A call that was made again though a client had already seen the usage of its first one in the log. */
export interface RepeatedCall {
  readonly name: string;
  /** By an owner that had lost its lease while it stood still, and woke up amid the call: nothing can keep it from that. */
  readonly stale: boolean;
}

export function repeatedCalls({ clients, calls, record, turns }: Observations): RepeatedCall[] {
  const durable = newestSightings(clients.readings);
  const owners = Map.groupBy(
    record.filter((line) => line.kind === "owner"),
    ({ turnId }) => turnId,
  );
  return turns.flatMap((turn) => {
    const ofTurn = calls.filter((call) => turnMessageOf(call) === turn.message);
    const byPrompt = Map.groupBy(ofTurn, ({ messages }) => JSON.stringify(messages));
    return [...byPrompt.values()].flatMap((attempts) => {
      const step = callNumberOf(attempts[0] as ReplicaCall);
      const seenAtMs = durable.get(turn.turnId)?.[step];
      if (seenAtMs === undefined) return [];
      return attempts
        .filter(({ arrivedMs }) => arrivedMs > seenAtMs)
        .map((again) => ({
          name: `call ${step + 1} of ${describe(turn)} on ${again.replica}, ${again.arrivedMs - seenAtMs} ms after its end was seen`,
          stale: ownedSince(owners.get(turn.turnId) ?? [], again) < seenAtMs,
        }));
    });
  });
}

export function checkRepeatedCalls(seen: Observations): Violation[] {
  return repeatedCalls(seen)
    .filter(({ stale }) => !stale)
    .map(({ name }) => ({ property: "repeated call", detail: name }));
}

/** What tools wrote down against what the logs say of them. */
export function checkTools({ turns, record, account }: Observations): Violation[] {
  const runs = Map.groupBy(
    record.filter((line) => line.kind === "tool"),
    ({ id }) => id.split("/")[0] ?? "",
  );
  return turns
    .filter(({ turnId }) => !account.unended.includes(turnId))
    .flatMap((turn) => {
      const ofTurn = runs.get(turn.turnId) ?? [];
      return ["once", "again"].flatMap((tool) =>
        checkTool(turn, { tool, runs: ofTurn.filter((run) => run.tool === tool) }),
      );
    });
}

function checkTool(turn: StoredTurn, { tool, runs }: { tool: string; runs: readonly ToolLine[] }): Violation[] {
  const violations: Violation[] = [];
  const wrong = (what: string): void => {
    violations.push({ property: "tool", detail: `${tool} of ${describe(turn)} ${what}` });
  };
  const most = tool === "once" ? 1 : 1 + turn.takeovers;
  if (runs.length > most) wrong(`ran ${runs.length} times`);
  const ends = eventsOf(turn).flatMap(({ event }) =>
    event.case === "toolCallCompleted" && event.value.tool === tool ? [event.value] : [],
  );
  for (const { outcome, content } of ends) {
    const isFirm = outcome === ToolOutcome.OK;
    if (isFirm && !runs.some(({ id }) => toolResult(tool, id) === content)) wrong("has a result of no run");
    const mayBeUnknown = turn.takeovers > 0 || turn.finishReason !== FinishReason.TERMINATED;
    if (!isFirm && !(outcome === ToolOutcome.UNKNOWN && mayBeUnknown)) wrong(`has the outcome ${outcome}`);
    if (tool === "again" && !isFirm && turn.finishReason === FinishReason.TERMINATED) wrong("was not repeated");
  }
  if (turn.finishReason === FinishReason.TERMINATED && ends.length !== 1) wrong(`has ${ends.length} ends`);
  return violations;
}

/** The message of the turn that a call was made for: the last one that is a client's. */
export function turnMessageOf({ messages }: Pick<ReplicaCall, "messages">): string {
  const prefix = messageOf("");
  const mine = messages.findLast(({ role, content }) => role === "user" && String(content ?? "").startsWith(prefix));
  return mine?.content ?? "";
}

/** Number of a call in its turn, from 0: by what its prompt has behind the turn's message. */
function callNumberOf(call: ReplicaCall): number {
  const { messages } = call;
  const start = messages.findLastIndex(({ content }) => content === turnMessageOf(call));
  const behind = messages.slice(start + 1);
  // The first agent's tool results; then what it said in the end, which is the other agent's prompt.
  if (behind.some(({ role }) => role === "tool")) return 1;
  return behind.length === 0 ? 0 : 2;
}

/** When some client first saw the usage record of each whole call, by turn and number of the call. */
function newestSightings(readings: Observations["clients"]["readings"]): Map<string, (number | undefined)[]> {
  const sightings = new Map<string, (number | undefined)[]>();
  for (const { turnId, afterSequence, events } of readings) {
    // Only who read from the beginning knows which call a record is of.
    if (afterSequence > 0n) continue;
    const times = sightings.get(turnId) ?? [];
    sightings.set(turnId, times);
    let call = 0;
    for (const { event, atMs } of events) {
      if (event.event.case !== "usageRecorded" || event.event.value.usageSource !== UsageSource.PROVIDER) continue;
      times[call] = Math.min(times[call] ?? Number.POSITIVE_INFINITY, atMs);
      call++;
    }
  }
  return sightings;
}

/** Since when the replica of a call had the turn. */
function ownedSince(owners: readonly OwnerLine[], { replica, arrivedMs }: ReplicaCall): number {
  return Math.max(
    0,
    ...owners.filter((line) => line.replica === replica && line.atMs <= arrivedMs).map(({ atMs }) => atMs),
  );
}
