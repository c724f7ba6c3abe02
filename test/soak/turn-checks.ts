import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import { describe, eventsOf } from "./log-checks.ts";
import type { Observations, StoredTurn } from "./observations.ts";
import { messageOf, type TurnAction } from "./schedule.ts";
import type { Violation } from "./violation.ts";

/** After more takeovers than this a turn is given up (src/turns/turn-takeover.ts). */
const MAX_TAKEOVERS = 5;

/** A request is one turn at most, however often it was sent. */
export function checkKeys({ schedule, turns, clients }: Observations): Violation[] {
  return turnActions(schedule.actions).flatMap((action) => {
    const ids = new Set([
      ...turns.filter(({ message }) => message === messageOf(action.name)).map(({ turnId }) => turnId),
      ...clients.readings.filter((reading) => reading.action.name === action.name).map(({ turnId }) => turnId),
      ...clients.replies.filter((reply) => reply.action.name === action.name).map(({ turnId }) => turnId),
    ]);
    ids.delete("");
    if (ids.size <= 1) return [];
    return [{ property: "key", detail: `turn ${action.name} is ${ids.size} turns: ${[...ids].join(", ")}` }];
  });
}

/** Turns end by themselves, unless the schedule has something that ends them. */
export function checkEnds({ schedule, turns, account }: Observations): Violation[] {
  const asked = turnActions(schedule.actions);
  return turns
    .filter(({ turnId }) => !account.unended.includes(turnId))
    .flatMap((turn) => {
      const action = asked.find(({ name }) => messageOf(name) === turn.message);
      const others = asked.filter(({ session }) => session === turn.sessionId);
      const mayEndWith: Partial<Record<FinishReason, boolean>> = {
        [FinishReason.TERMINATED]: true,
        [FinishReason.CANCELLED]:
          action?.endsWithCall === true ||
          schedule.actions.some((other) => other.kind === "cancel" && other.name === action?.name),
        [FinishReason.INTERRUPTED]: others.some(({ onBusy }) => onBusy === "interrupt"),
        [FinishReason.ROLLED_BACK]: others.some(({ onBusy }) => onBusy === "rollback"),
        [FinishReason.ERROR]: turn.takeovers > MAX_TAKEOVERS,
      };
      const violations: Violation[] = [];
      const end = eventsOf(turn).at(-1)?.event;
      const said = end?.case === "turnCompleted" ? end.value.finishReason : undefined;
      if (mayEndWith[turn.finishReason] !== true || said !== turn.finishReason) {
        const why = turn.log.at(-1)?.failure?.reason ?? "no failure";
        violations.push({ property: "end", detail: `${describe(turn)} ended so, its log with ${said}, ${why}` });
      }
      return violations;
    });
}

/** What a cancel promises. */
export function checkCancels({ clients, turns }: Observations): Violation[] {
  return clients.cancels.flatMap(({ turnId, lastSequence }) => {
    const turn = turns.find((one) => one.turnId === turnId);
    if (turn === undefined) return [];
    const later = eventsOf(turn).filter(({ sequence, event }) => sequence > lastSequence && event.case === "textDelta");
    if (later.length <= 1) return [];
    return [{ property: "cancel", detail: `${describe(turn)} has ${later.length} deltas after ${lastSequence}` }];
  });
}

/** Unary replies against the log. */
export function checkReplies({ clients, turns }: Observations): Violation[] {
  return clients.replies.flatMap(({ turnId, response, finishReason, totalTokens, action }) => {
    const turn = turns.find((one) => one.turnId === turnId);
    if (turn === undefined) return [];
    const said = eventsOf(turn).flatMap(({ event }) =>
      event.case === "messageCompleted" ? [event.value.content] : [],
    );
    const same = said.at(-1) === response && finishReason === turn.finishReason && totalTokens === tokensOf(turn);
    return same ? [] : [{ property: "reply", detail: `of turn ${action.name}, ${describe(turn)}` }];
  });
}

/** Sums of usage records. */
export function checkUsage({ turns, sessions, account }: Observations): Violation[] {
  const ended = turns.filter(({ turnId }) => !account.unended.includes(turnId));
  const violations: Violation[] = ended.flatMap((turn) => {
    const end = eventsOf(turn).at(-1)?.event;
    const total = end?.case === "turnCompleted" ? end.value.tokenUsage?.totalTokens : undefined;
    if (total === tokensOf(turn)) return [];
    return [{ property: "usage", detail: `${describe(turn)} says ${total} tokens, its records ${tokensOf(turn)}` }];
  });
  for (const { session } of sessions) {
    const ofSession = ended.filter(({ sessionId }) => sessionId === session.sessionId);
    const sum = ofSession.reduce((tokens, turn) => tokens + tokensOf(turn), 0);
    if (session.tokenUsage?.totalTokens !== sum) {
      const detail = `session ${session.sessionId} says ${session.tokenUsage?.totalTokens} tokens, its turns ${sum}`;
      violations.push({ property: "usage", detail });
    }
  }
  return violations;
}

function tokensOf(turn: StoredTurn): number {
  return eventsOf(turn).reduce(
    (sum, { event }) => sum + (event.case === "usageRecorded" ? (event.value.tokenUsage?.totalTokens ?? 0) : 0),
    0,
  );
}

function turnActions(actions: Observations["schedule"]["actions"]): TurnAction[] {
  return actions.filter((action) => action.kind === "turn");
}
