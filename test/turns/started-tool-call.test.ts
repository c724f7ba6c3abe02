import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { ToolOutcome } from "../../gen/parley/chat/v1/turn_event_pb.js";
import { ToolCallFinishedSchema, TurnStepSchema } from "../../gen/parley/storage/v1/turn_step_pb.js";
import { loneJournal } from "./lone-journal.ts";

// A lost owner has marked a tool's call as started. Its server may have told that owner that the call may be repeated, and
// not have been reached by this one yet.

test.each([
  ["neither owner knew that it may be repeated", { before: false, now: false }, ToolOutcome.UNKNOWN],
  ["the owner that started it knew that it may", { before: true, now: false }, ToolOutcome.OK],
  ["this owner knows that it may", { before: false, now: true }, ToolOutcome.OK],
])("%s", async (_, { before, now }, outcome) => {
  const step = { agent: "a", name: "files.read" };
  const steps = [
    create(TurnStepSchema, { line: 1, call: 1, sequence: 1n, step: { case: "prepared", value: step } }),
    create(TurnStepSchema, {
      line: 2,
      call: 1,
      sequence: 1n,
      step: { case: "started", value: { idempotent: before } },
    }),
  ];
  const journal = loneJournal({ turnId: "t", past: { steps, lastSequence: 1n, tail: [], boundTokens: 0 } });
  const finished = await journal.toolStep(
    { ...step, idempotent: now },
    {
      run: async () => create(ToolCallFinishedSchema, { outcome: ToolOutcome.OK }),
      unknown: () => create(ToolCallFinishedSchema, { outcome: ToolOutcome.UNKNOWN }),
    },
  );
  expect(finished.outcome).toBe(outcome);
});
