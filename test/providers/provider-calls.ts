import type {
  CallUsage,
  Model,
  ModelAttempt,
  ModelObserver,
  ModelReply,
  ModelRequest,
} from "../../src/engine/model.ts";
import { ModelCallFailure } from "../../src/engine/model.ts";
import { Failure } from "../../src/failure.ts";

/** A call of a short conversation. */
export const REQUEST: ModelRequest = {
  model: "gpt-4",
  messages: [
    { role: "system", content: "You are helpful." },
    { role: "user", content: "Hello" },
  ],
  tools: [],
  temperature: 0.3,
  maxOutputTokens: 500,
  maxTotalTokens: 4_000,
  timeoutMs: 10_000,
};

/** What came of a call. */
export interface CallOutcome {
  readonly reply?: ModelReply;
  readonly failure?: Failure;
  /** Of the reply or the failed call; undefined: no call was made. */
  readonly usage: CallUsage | undefined;
  /** The pieces of text, as they were pushed. */
  readonly pieces: readonly string[];
  readonly attempts: readonly ModelAttempt[];
}

/** Makes a call to its end. `onText` sees each piece after it was noted. */
export async function outcomeOf(
  model: Model,
  request: Partial<ModelRequest> = {},
  {
    signal = new AbortController().signal,
    onText,
    beforeAttempt = async () => undefined,
  }: Partial<Pick<ModelObserver, "signal" | "onText" | "beforeAttempt">> = {},
): Promise<CallOutcome> {
  const pieces: string[] = [];
  const attempts: ModelAttempt[] = [];
  const observer = {
    signal,
    onText(text: string): void {
      pieces.push(text);
      onText?.(text);
    },
    beforeAttempt,
    onUnsent: () => undefined,
    onAttempt: (attempt: ModelAttempt) => void attempts.push(attempt),
  };
  try {
    const reply = await model.call({ ...REQUEST, ...request }, observer);
    return { reply, usage: reply.usage, pieces, attempts };
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    return { failure: error, usage: error instanceof ModelCallFailure ? error.usage : undefined, pieces, attempts };
  }
}
