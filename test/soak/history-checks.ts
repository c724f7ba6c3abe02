import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import { describe, eventsOf } from "./log-checks.ts";
import type { Observations, StoredSession, StoredTurn } from "./observations.ts";
import { messageOf } from "./schedule.ts";
import type { Violation } from "./violation.ts";
import type { ReplicaCall } from "./world.ts";

/** Ends after which a turn is not in the history. */
const LEAVES_NOTHING: ReadonlySet<FinishReason> = new Set([FinishReason.ERROR, FinishReason.ROLLED_BACK]);

/** Histories: committed turns only, each whole and once, and what every model was told of them. */
export function checkHistories({ sessions, turns, calls, account }: Observations): Violation[] {
  return sessions.flatMap((session) => {
    const { sessionId } = session.session;
    const ofSession = turns.filter((turn) => turn.sessionId === sessionId && !account.unended.includes(turn.turnId));
    return [...checkCommitted(session, ofSession), ...checkPrompts(session, { turns: ofSession, calls })];
  });
}

function checkCommitted({ session, messages }: StoredSession, turns: readonly StoredTurn[]): Violation[] {
  const violations: Violation[] = [];
  const order = messages.map(({ turnId }) => turnId).filter((turnId, index, all) => turnId !== all[index - 1]);
  if (new Set(order).size !== order.length)
    violations.push({ property: "history", detail: `turns of ${session.sessionId} stand among each other` });
  for (const turn of turns) {
    const stored = messages
      .filter(({ turnId }) => turnId === turn.turnId)
      .map(({ agent, content }) => `${agent}: ${content}`);
    const said = eventsOf(turn).flatMap(({ event }) =>
      event.case === "messageCompleted" && event.value.content !== ""
        ? [`${event.value.agent}: ${event.value.content}`]
        : [],
    );
    const expected = LEAVES_NOTHING.has(turn.finishReason) ? [] : [`: ${turn.message}`, ...said];
    if (stored.join("\n") !== expected.join("\n")) {
      const property = stored.length > expected.length && expected.length > 0 ? "duplicate" : "history";
      const detail = `${describe(turn)} has ${stored.length} messages in the history, not ${expected.length}, or others`;
      violations.push({ property, detail });
    }
  }
  const known = new Set(turns.map(({ turnId }) => turnId));
  for (const turnId of order) {
    if (!known.has(turnId))
      violations.push({ property: "history", detail: `${turnId} is in the history and has no log` });
  }
  if (session.messageCount !== BigInt(messages.length))
    violations.push({ property: "history", detail: `${session.sessionId} counts ${session.messageCount} messages` });
  return violations;
}

/** What a model was told came before a turn is what the history has before it; before a turn that is not in it, a beginning of it. */
function checkPrompts(
  { messages }: StoredSession,
  { turns, calls }: { turns: readonly StoredTurn[]; calls: readonly ReplicaCall[] },
): Violation[] {
  const contents = messages.map(({ content }) => content);
  const boundaries = messages.flatMap(({ turnId }, index) => (turnId === messages[index - 1]?.turnId ? [] : [index]));
  return turns.flatMap((turn) => {
    const place = messages.findIndex(({ turnId }) => turnId === turn.turnId);
    return calls.flatMap((call): Violation[] => {
      const told = toldBefore(call, turn.message);
      if (told === undefined) return [];
      const isPrefix = told.every((content, index) => content === contents[index]);
      const isBoundary = [...boundaries, contents.length].includes(told.length);
      if (isPrefix && (place < 0 ? isBoundary : told.length === place)) return [];
      const detail = `a call of ${describe(turn)} was told ${told.length} messages of the history, which has ${place} before it`;
      return [{ property: "history", detail }];
    });
  });
}

/** The history in a call's prompt; undefined: the call is another turn's. */
function toldBefore({ messages }: ReplicaCall, message: string): string[] | undefined {
  const prefix = messageOf("");
  const current = messages.findLastIndex(
    ({ role, content }) => role === "user" && String(content ?? "").startsWith(prefix),
  );
  if (messages[current]?.content !== message) return undefined;
  return messages
    .slice(0, current)
    .filter(({ role }) => role !== "system")
    .map(({ content }) => content);
}
