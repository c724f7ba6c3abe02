import { create } from "@bufbuild/protobuf";
import { type Timestamp, timestampFromMs, timestampNow } from "@bufbuild/protobuf/wkt";
import { type Message, Role } from "../../gen/parley/chat/v1/message_pb.js";
import { UsageSource } from "../../gen/parley/chat/v1/token_usage_pb.js";
import type { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import { type MessageRecord, MessageRecordSchema } from "../../gen/parley/storage/v1/message_record_pb.js";
import type { TurnLogEntry } from "../../gen/parley/storage/v1/turn_log_pb.js";
import { tokenizerFor } from "../engine/tokenizer.ts";
import type { TurnEvent } from "../engine/turn.ts";
import type { TurnCommit, UsageTotals } from "./ports.ts";

/** Version of the stored message format that this release writes. */
export const MESSAGE_SCHEMA_VERSION = 1;

/** Sums up a turn into what its commit writes. */
export interface TurnTally {
  /** Counts an event of the turn. */
  add(event: TurnEvent): void;
  /** Counts a message that a former owner's log has. */
  addSpoken(message: { agent: string; content: string; messageId: string; timeMs: number }): void;
  /** Tokens and cost of all calls, former owners' included. */
  readonly usage: UsageTotals;
  /** Tokens that count against the turn's bound: of a lost call only what the log holds (DESIGN §4). */
  readonly boundTokens: number;
  /** Counts what a lost call had said. */
  addCut(text: string): void;
  commit(end: { entries: readonly TurnLogEntry[]; finishReason: FinishReason; leavesNothing: boolean }): TurnCommit;
}

export function createTurnTally({
  turnId,
  message,
  model,
  askTime,
  before,
  boundTokensBefore,
}: {
  turnId: string;
  /** The user's message. */
  message: string;
  /** The model whose tokenizer counts what enters the history. */
  model: string;
  /** When the user's message came. */
  askTime: Timestamp;
  /** What the turn had used when this owner got it. */
  before: UsageTotals;
  /** What of that counts against the turn's bound. */
  boundTokensBefore: number;
}): TurnTally {
  const tokenizer = tokenizerFor(model);
  const spoken: { agent: string; content: string; messageId: string; createTime: Timestamp }[] = [];
  let { promptTokens, completionTokens, costMicroUsd } = before;
  let boundTokens = boundTokensBefore;
  const record = (said: Omit<Message, "$typeName" | "$unknown" | "turnId">): MessageRecord =>
    create(MessageRecordSchema, {
      schemaVersion: MESSAGE_SCHEMA_VERSION,
      message: { ...said, turnId },
      tokenCount: tokenizer.countText(said.content),
      tokenizer: tokenizer.name,
    });
  return {
    add(event) {
      if (event.case === "messageCompleted" && event.value.content) {
        const { agent = "", content, messageId = "" } = event.value;
        spoken.push({ agent, content, messageId, createTime: timestampNow() });
      } else if (event.case === "usageRecorded") {
        promptTokens += event.value.tokenUsage?.promptTokens ?? 0;
        completionTokens += event.value.tokenUsage?.completionTokens ?? 0;
        costMicroUsd += event.value.costMicroUsd ?? 0n;
        if (event.value.usageSource !== UsageSource.HOLD_MAXIMUM)
          boundTokens += event.value.tokenUsage?.totalTokens ?? 0;
      }
    },
    addSpoken({ timeMs, ...said }) {
      if (said.content !== "") spoken.push({ ...said, createTime: timestampFromMs(timeMs) });
    },
    addCut(text) {
      boundTokens += tokenizer.countText(text);
    },
    get boundTokens() {
      return boundTokens;
    },
    get usage() {
      return { promptTokens, completionTokens, costMicroUsd };
    },
    commit({ entries, finishReason, leavesNothing }) {
      const asked = { role: Role.USER, agent: "", content: message, messageId: `${turnId}.0`, createTime: askTime };
      return {
        entries,
        messages: leavesNothing
          ? []
          : [record(asked), ...spoken.map((said) => record({ role: Role.ASSISTANT, ...said }))],
        finishReason,
        promptTokens,
        completionTokens,
        costMicroUsd,
      };
    },
  };
}
