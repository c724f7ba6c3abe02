import type { JsonObject } from "@bufbuild/protobuf";
import type { ToolOutcome } from "../../gen/parley/chat/v1/turn_event_pb.js";

/** What a model is told of a tool. */
export interface ToolSpec {
  readonly name: string;
  readonly description: string;
  /** JSON Schema of the arguments, an object. */
  readonly parameters: JsonObject;
}

/** Something that agents can have done. */
export interface Tool extends ToolSpec {
  /** Whether a call whose end is not known may be made again. */
  readonly idempotent: boolean;
  /**
   * Makes one call; resolves with what the model is told. A {@link ToolFailure} has its own words for the model; of anything
   * else that it throws the model is told that the tool failed, never why in the error's words.
   */
  call(argumentsJson: string, call: ToolCall): Promise<string>;
}

export interface ToolCall {
  /** Id of the call, unique over all turns and the same when an idempotent call is repeated. */
  readonly id: string;
  /** Ends the call. */
  readonly signal: AbortSignal;
}

/** A call that did not end well, in words that are made for the model: nothing of an error's own, no address, no key. */
export class ToolFailure extends Error {
  /** REFUSED: the call was not made, for what it asks. ERROR: it could not be made, or did not end well. */
  readonly outcome: ToolOutcome.REFUSED | ToolOutcome.ERROR;
  /** What the model is told. */
  readonly told: string;

  constructor(outcome: ToolFailure["outcome"], told: string, options?: ErrorOptions) {
    // What is told may be a tool's own words: they go to the model, and into no log.
    super("a tool call failed", options);
    this.name = "ToolFailure";
    this.outcome = outcome;
    this.told = told;
  }
}

/** A tool whose calls are made in another way; all else is its own, as it stands whenever it is asked for. */
export function withCall(tool: Tool, call: Tool["call"]): Tool {
  return {
    name: tool.name,
    get description() {
      return tool.description;
    },
    get parameters() {
      return tool.parameters;
    },
    get idempotent() {
      return tool.idempotent;
    },
    call,
  };
}

/** All tools that agents can be allowed to call, by name. */
export type ToolBox = Pick<ReadonlyMap<string, Tool>, "get">;
