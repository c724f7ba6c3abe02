import type { GuardrailStage } from "../../gen/parley/chat/v1/turn_event_pb.js";
import type { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import type { TurnEnd } from "../engine/turn.ts";
import type { Failure } from "../failure.ts";
import type { Lease } from "./ports.ts";
import type { BegunTurn } from "./turn-execution.ts";

/** What logs, metrics and traces want to know of turns. */
export interface TurnObserver {
  /** Runs a team's work inside what the observer keeps around it, such as a span. */
  around(turn: BegunTurn, work: () => Promise<TurnEnd>): Promise<TurnEnd>;
  /** A model call's usage stands in a turn's log. */
  tokensRecorded(call: CallTokens): void;
  /** That a check of the team failed stands in the turn's log. */
  guardrailTripped(turn: BegunTurn, check: { readonly guardrail: string; readonly stage: GuardrailStage }): void;
  turnEnded(end: {
    readonly turn: BegunTurn;
    readonly finishReason: FinishReason;
    readonly seconds: number;
    readonly promptTokens: number;
    readonly completionTokens: number;
    readonly failure: Failure | undefined;
  }): void;
  /** The process could not write the turn's end. */
  turnLost(loss: { readonly turn: BegunTurn; readonly error: unknown }): void;
  /** The turn's owner was lost; this process goes on. */
  turnTakenOver(takeover: { readonly lease: Lease; readonly takeovers: number }): void;
  /** A provider counted more of a call than was held for it: it is charged, though it may cross a cap. */
  overHold(turn: BegunTurn, call: CallTokens): void;
  /** A call could not be charged; the account will charge it in full, and that be corrected. */
  unsettled(turn: BegunTurn, error: unknown): void;
  /** A defect of ours. */
  unexpected(turn: BegunTurn, error: unknown): void;
}

/** Tokens of one model call. */
export interface CallTokens {
  readonly model: string;
  readonly promptTokens: number;
  readonly completionTokens: number;
}
