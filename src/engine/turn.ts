import type { MessageInitShape } from "@bufbuild/protobuf";
import type { StreamChatResponseSchema } from "../../gen/parley/chat/v1/chat_service_pb.js";
import type { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import type { MessageRecord } from "../../gen/parley/storage/v1/message_record_pb.js";
import type { Model } from "./model.ts";
import type { TeamDefinition } from "./team.ts";

/** What a team works on. */
export interface TurnInput {
  readonly team: TeamDefinition;
  /** The history's newest messages, oldest first. */
  readonly history: readonly MessageRecord[];
  /** The user's message. */
  readonly message: string;
  /** Bound on prompt and completion tokens of all model calls. */
  readonly maxTokens: number;
}

/** What a team works with. */
export interface TurnPorts {
  readonly model: Model;
  /** Puts an event into the turn's log. Synchronous: writing is batched behind it. */
  emit(event: TurnEvent): void;
  /** Makes the id of a message that is to stand in the history. */
  newMessageId(): string;
  /** Ends the turn early, with what was said. */
  readonly signal: AbortSignal;
}

/** One case of the event oneof. */
export type TurnEvent = Extract<
  NonNullable<MessageInitShape<typeof StreamChatResponseSchema>["event"]>,
  { case: string }
>;

/** How a team's work ended. Failures are thrown. */
export interface TurnEnd {
  readonly finishReason: FinishReason;
  /** With TERMINATED the condition that was met, as AutoGen names it. */
  readonly termination?: string;
}
