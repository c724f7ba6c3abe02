import type { JsonObject } from "@bufbuild/protobuf";

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
   * Makes one call; resolves with what the model is told. What it throws makes the call fail: the model is told that it
   * failed, never why in the error's words.
   */
  call(argumentsJson: string, call: ToolCall): Promise<string>;
}

export interface ToolCall {
  /** Id of the call, unique over all turns and the same when an idempotent call is repeated. */
  readonly id: string;
  /** Ends the call. */
  readonly signal: AbortSignal;
}

/** All tools that agents can be allowed to call, by name. */
export type ToolBox = ReadonlyMap<string, Tool>;
