import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { PendingInputSchema } from "../../gen/parley/storage/v1/pending_input_pb.js";
import { TEAM } from "../engine/scripted-turn.ts";
import { loneJournal } from "./lone-journal.ts";

/** The ids that a turn gives to a model's call and to one that the model gives none. */
function idsIn(turnId: string, pending?: { turnIds: string[]; questions: string[] }): string[] {
  const none = { answers: new Map(), fresh: new Set<string>(), team: TEAM };
  const continued = pending && { pending: create(PendingInputSchema, pending), ...none };
  const journal = loneJournal({ turnId, continued });
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
