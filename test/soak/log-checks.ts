import { toBinary } from "@bufbuild/protobuf";
import { type StreamChatResponse, StreamChatResponseSchema } from "../../gen/parley/chat/v1/chat_service_pb.js";
import type { Observations, StoredTurn } from "./observations.ts";
import type { Violation } from "./violation.ts";

/** Logs by themselves: numbers, the end, texts, and nothing twice. */
export function checkLogs({ turns, account }: Observations): Violation[] {
  return turns
    .filter(({ turnId }) => !account.unended.includes(turnId))
    .flatMap((turn) => [...checkNumbers(turn), ...checkEnd(turn), ...checkTexts(turn), ...checkOnce(turn)]);
}

/** Readers against the log: live ones, those that resumed, and those who came afterwards. */
export function checkReaders({ clients, turns, account }: Observations): Violation[] {
  const logs = new Map(turns.map((turn) => [turn.turnId, turn]));
  const violations: Violation[] = [];
  /** Of turns whose session was deleted only the readers are left: they must agree. */
  const agreed = new Map<string, Map<bigint, string>>();
  for (const { turnId, how, afterSequence, events, end, action } of clients.readings) {
    const who = `${how} of turn ${action.name}`;
    let last = afterSequence;
    for (const { event } of events) {
      if (event.sequence > last + 1n)
        violations.push({ property: "gap", detail: `${who}: ${event.sequence} after ${last}` });
      if (event.sequence <= last)
        violations.push({ property: "duplicate", detail: `${who}: ${event.sequence} after ${last}` });
      last = event.sequence;
    }
    const turn = logs.get(turnId);
    const known = turn === undefined ? (agreed.get(turnId) ?? new Map<bigint, string>()) : bytesOf(turn);
    if (turn === undefined) agreed.set(turnId, known);
    for (const { event } of events) {
      const stored = known.get(event.sequence);
      if (stored === undefined && turn === undefined) known.set(event.sequence, hex(event));
      else if (stored !== hex(event)) {
        const what = stored === undefined ? "is not in the log" : "is another in the log";
        violations.push({ property: "unsaid", detail: `${who}: ${event.event.case} ${event.sequence} ${what}` });
      }
    }
    const completed = events.at(-1)?.event.event.case === "turnCompleted";
    const skippedAll = turn !== undefined && afterSequence === BigInt(turn.log.length);
    if (end === "ended" && !completed && !skippedAll) {
      violations.push({ property: "terminal", detail: `${who}: ended well without its last event` });
    }
  }
  for (const turn of turns.filter(({ turnId }) => !account.unended.includes(turnId))) {
    const log = [...bytesOf(turn).values()].join();
    for (const [replica, replay] of turn.replays.entries()) {
      if (replay.map(hex).join() !== log) {
        violations.push({
          property: "unsaid",
          detail: `a replay of ${describe(turn)} on ${replica} has ${replay.length} of ${turn.log.length} events, or others`,
        });
      }
    }
  }
  return violations;
}

export function describe({ turnId, message, finishReason, takeovers }: StoredTurn): string {
  return `"${message}" (${turnId}, finish reason ${finishReason}, ${takeovers} takeovers)`;
}

export function eventsOf({ log }: StoredTurn): StreamChatResponse[] {
  return log.flatMap(({ event }) => event ?? []);
}

function checkNumbers(turn: StoredTurn): Violation[] {
  const sequences = eventsOf(turn).map(({ sequence }) => sequence);
  const wrong = sequences.findIndex((sequence, index) => sequence !== BigInt(index + 1));
  if (wrong < 0) return [];
  const property = (sequences[wrong] ?? 0n) > BigInt(wrong + 1) ? "gap" : "duplicate";
  return [{ property, detail: `the log of ${describe(turn)} has ${sequences[wrong]} at place ${wrong + 1}` }];
}

function checkEnd(turn: StoredTurn): Violation[] {
  const events = eventsOf(turn);
  const ends = events.filter(({ event }) => event.case === "turnCompleted").length;
  const [first, last] = [events[0]?.event.case, events.at(-1)?.event.case];
  if (ends === 1 && last === "turnCompleted" && first === "turnStarted") return [];
  return [
    { property: "terminal", detail: `${describe(turn)} begins with ${first}, has ${ends} ends and ends with ${last}` },
  ];
}

function checkTexts(turn: StoredTurn): Violation[] {
  const violations: Violation[] = [];
  let deltas: { readonly sequence: bigint; readonly text: string }[] = [];
  for (const { sequence, event } of eventsOf(turn)) {
    switch (event.case) {
      case "textDelta":
        deltas.push({ sequence, text: event.value.text });
        break;
      case "stepRestarted": {
        const { discardTextAfterSequence } = event.value;
        deltas = deltas.filter((delta) => delta.sequence <= discardTextAfterSequence);
        break;
      }
      case "messageCompleted": {
        const said = deltas.map(({ text }) => text).join("");
        if (said !== event.value.content) {
          violations.push({
            property: "text",
            detail: `${describe(turn)}: deltas before ${sequence} say ${JSON.stringify(said)}, the message ${JSON.stringify(event.value.content)}`,
          });
        }
        deltas = [];
      }
    }
  }
  if (deltas.length > 0)
    violations.push({ property: "text", detail: `${describe(turn)} ends with text that is in no message` });
  return violations;
}

/** Messages and tool calls have ids that are there once, and a tool call has one beginning and one end. */
function checkOnce(turn: StoredTurn): Violation[] {
  const ids = eventsOf(turn).flatMap(({ event }) => {
    switch (event.case) {
      case "messageCompleted":
        return [`message ${event.value.messageId}`];
      case "toolCallStarted":
        return [`beginning of ${event.value.toolCallId}`];
      case "toolCallCompleted":
        return [`end of ${event.value.toolCallId}`];
      case "agentStarted":
        return [`agent ${event.value.agent}`];
      default:
        return [];
    }
  });
  return ids
    .filter((id, index) => ids.indexOf(id) !== index)
    .map((id) => ({ property: "duplicate", detail: `${describe(turn)} has ${id} twice` }));
}

function bytesOf(turn: StoredTurn): Map<bigint, string> {
  return new Map(eventsOf(turn).map((event) => [event.sequence, hex(event)]));
}

function hex(event: StreamChatResponse): string {
  const { sequence, event: what } = event;
  return toBinary(StreamChatResponseSchema, {
    $typeName: "parley.chat.v1.StreamChatResponse",
    sequence,
    event: what,
  }).toHex();
}
