import { create } from "@bufbuild/protobuf";
import { timestampNow } from "@bufbuild/protobuf/wkt";
import { expect, test } from "vitest";
import { PendingInputSchema } from "../../gen/parley/storage/v1/pending_input_pb.js";
import { NO_USAGE } from "../../src/turns/ports.ts";
import { createTurnJournal, NO_PAST } from "../../src/turns/turn-journal.ts";
import { createTurnLogWriter } from "../../src/turns/turn-log-writer.ts";
import { createTurnTally } from "../../src/turns/turn-tally.ts";
import { TEAM } from "../engine/scripted-turn.ts";

/** The ids that a turn gives to a model's call and to one that the model gives none. */
function idsIn(turnId: string, pending?: { turnIds: string[]; questions: string[] }): string[] {
  const none = { answers: new Map(), fresh: new Set<string>(), team: TEAM };
  const journal = createTurnJournal({
    turnId,
    past: NO_PAST,
    writer: createTurnLogWriter({ lastSequence: 1n, lastLine: 0, append: async () => true, onError: expect.fail }),
    tally: createTurnTally({
      turnId,
      message: "Hi",
      model: "gpt-4",
      askTime: timestampNow(),
      before: NO_USAGE,
      boundTokensBefore: 0,
    }),
    account: { beginCall: expect.fail, loseCall: async () => [], takeRow: expect.fail },
    maxTokens: 1_000,
    continued: pending && { pending: create(PendingInputSchema, pending), ...none },
    signal: new AbortController().signal,
  });
  return [journal.newToolCallId("call_1"), journal.newToolCallId("")];
}

test("ids of calls are a conversation's own, and the same in all turns of it", () => {
  const asked = idsIn("s.first");
  expect(asked).not.toEqual(idsIn("s.other"));
  expect(idsIn("s.second", { turnIds: ["s.first"], questions: asked })).toEqual(asked);
  expect(idsIn("s.third", { turnIds: ["s.first", "s.second"], questions: asked.slice(1) })).toEqual(asked);
});

test("what 0.6.0 has asked keeps its ids", () => {
  expect(idsIn("s.second", { turnIds: ["s.first"], questions: ["call_1-1"] })).toEqual(["call_1-1", "call-2"]);
});
