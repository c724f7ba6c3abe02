import type { MessageInitShape } from "@bufbuild/protobuf";
import type { StreamChatResponseSchema } from "../../gen/parley/chat/v1/chat_service_pb.js";
import type { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";
import type { MessageRecord } from "../../gen/parley/storage/v1/message_record_pb.js";
import type { PersonAnswer } from "../../gen/parley/storage/v1/pending_input_pb.js";
import type { ModelCallFinished, ToolCallFinished } from "../../gen/parley/storage/v1/turn_step_pb.js";
import type { Model, ModelObserver } from "./model.ts";
import type { TeamDefinition } from "./team.ts";
import type { ToolBox } from "./tool.ts";

/** What a team works on. */
export interface TurnInput {
  readonly team: TeamDefinition;
  /** The history's newest messages, oldest first. */
  readonly history: readonly MessageRecord[];
  /** The user's message. */
  readonly message: string;
  /** All that the user says with this turn: the message, or the answers to what a former turn asked. */
  readonly userTexts: readonly string[];
  /** Bound on prompt and completion tokens of all model calls. */
  readonly maxTokens: number;
  /** When the turn was admitted, in milliseconds since the epoch. */
  readonly startTimeMs: number;
}

/**
 * What a team works with. Whoever takes a turn over runs its team anew, from the beginning: calls that have ended are not
 * made again, their results are handed back; so a team's way may depend on nothing but its input and these results.
 */
export interface TurnPorts {
  readonly model: Model;
  /** Who is to be told of attempts at models, whatever an agent makes of them. */
  readonly attempts: Pick<ModelObserver, "beforeAttempt" | "onUnsent" | "onAttempt">;
  readonly tools: ToolBox;
  /** Puts an event into the turn's log, unless it stands there already. Synchronous: writing is batched behind it. */
  emit(event: TurnEvent): void;
  /** Makes a model call, or hands back what came of it. What `run` throws ends the turn. */
  modelStep(step: CallStep, run: (call: OpenModelCall) => Promise<ModelCallFinished>): Promise<ModelCallFinished>;
  /**
   * Makes a tool call, or hands back what came of it. `run` is called only when the mark that it was started is durable;
   * `unknown` in its place when a lost owner had started the call and it may not be repeated.
   */
  toolStep(
    step: CallStep & { readonly idempotent: boolean },
    call: { run(call: OpenCall): Promise<ToolCallFinished>; unknown(): ToolCallFinished },
  ): Promise<ToolCallFinished>;
  /** Makes the id of a message that is to stand in the history. */
  newMessageId(): string;
  /** Makes the id of a tool call or a question unique in the turn, and in the turns that it goes on with. */
  newToolCallId(modelsId: string): string;
  /**
   * What a person has answered to a question, by its id, which must be the same when the team is run anew (of an approval: the
   * tool call's). `agent`: who goes on with the answer, where that is known. Undefined: nobody has answered; the team then says what it asks (`approval_required`,
   * `input_required`) and ends with INPUT_REQUIRED and its open questions. The session's next turn goes on from there.
   */
  answerTo(question: { readonly id: string; readonly agent?: string }): PersonAnswer | undefined;
  /** What is left of the turn's tokens. */
  tokensLeft(): number;
  /** Ends the turn early, with what was said. */
  readonly signal: AbortSignal;
}

/** Who calls what. */
export interface CallStep {
  readonly agent: string;
  /** The model's or the tool's name. */
  readonly name: string;
}

/** A call that is to be made. */
export interface OpenCall {
  /** Id of the attempt, unique over all turns. */
  readonly id: string;
}

export interface OpenModelCall extends OpenCall {
  /** What a lost owner's attempt had said when it was cut; empty: nothing. It is void, unless the call is over. */
  readonly cutText: string;
  /** The turn is not to go on: the message ends with the cut text, and no call is made. */
  readonly isOver: boolean;
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
  /** The user's message does not enter the history, nor does anything else of the turn. Absent: the finish reason decides. */
  readonly leavesNothing?: boolean;
  /** With INPUT_REQUIRED the ids of what a person is asked. */
  readonly questions?: readonly string[];
}
