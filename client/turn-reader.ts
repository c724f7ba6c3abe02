import type { MessageInitShape } from "@bufbuild/protobuf";
import { type Client, Code, ConnectError } from "@connectrpc/connect";
import type {
  ChatService,
  StreamChatRequestSchema,
  StreamChatResponse,
} from "../gen/parley/chat/v1/chat_service_pb.js";
import { FinishReason } from "../gen/parley/chat/v1/turn_pb.js";
import { reasonOf } from "./next-step.ts";
import { type RetryOptions, startRetries } from "./retries.ts";

/** An event of a turn, from whichever RPC. */
export type TurnEvent = Pick<StreamChatResponse, "sequence" | "event">;

export interface StreamOptions extends RetryOptions {
  /**
   * A turn's log keeps its newest 10,000 events. Whoever is away for longer than that gets OUT_OF_RANGE, reason
   * TURN_LOG_TRIMMED; with `true` the events that are there, from the oldest on. Default: false.
   */
  readonly skipTrimmed?: boolean;
}

/** Where to read: a turn that is begun by the request, or one that is there. */
export type TurnStart =
  | { readonly request: MessageInitShape<typeof StreamChatRequestSchema> }
  | { readonly turnId: string; readonly afterSequence: bigint };

/** Begins a turn, or finds it, and reads it to its end over as many calls as that takes. */
export async function* readTurn(
  service: Pick<Client<typeof ChatService>, "streamChat" | "resumeTurn">,
  start: TurnStart,
  { skipTrimmed = false, ...options }: StreamOptions,
): AsyncGenerator<TurnEvent, void, undefined> {
  let { turnId, afterSequence } = "turnId" in start ? start : { turnId: "", afterSequence: 0n };
  let finishReason = FinishReason.UNSPECIFIED;
  const retries = startRetries(options, () => (turnId === "" ? undefined : { turnId, lastSequence: afterSequence }));
  try {
    for (;;) {
      const attempt = retries.attempt();
      try {
        const events =
          "request" in start && turnId === ""
            ? service.streamChat(start.request, attempt.options)
            : service.resumeTurn({ turnId, afterSequence }, attempt.options);
        attempt.listen();
        for await (const { sequence, event } of events) {
          attempt.rest();
          retries.heard();
          const isNews = sequence === 0n ? event.case !== "heartbeat" : sequence > afterSequence;
          if (sequence > afterSequence) afterSequence = sequence;
          if (event.case === "turnStarted") turnId = event.value.turnId;
          if (event.case === "turnCompleted") finishReason = event.value.finishReason;
          if (isNews) yield { sequence, event };
          attempt.listen();
        }
        if (finishReason !== FinishReason.UNSPECIFIED) return;
        throw new ConnectError("The stream ended before its turn.", Code.Unavailable);
      } catch (error) {
        // The turn has ended; its status is in the error, or got lost on its way.
        if (finishReason !== FinishReason.UNSPECIFIED && !FAILED.has(finishReason)) return;
        if (finishReason !== FinishReason.UNSPECIFIED && reasonOf(error) !== "") throw error;
        const step = await retries.afterFailure(error);
        if (step.kind === "reconnect") turnId ||= step.turnId;
        if (step.kind !== "skip") continue;
        if (!skipTrimmed || step.afterSequence <= afterSequence) throw error;
        ({ afterSequence } = step);
      } finally {
        attempt.end();
      }
    }
  } finally {
    retries.close();
  }
}

/** Turns that ended so end their RPC with a status that says why. */
const FAILED: ReadonlySet<FinishReason> = new Set([
  FinishReason.CANCELLED,
  FinishReason.INTERRUPTED,
  FinishReason.ROLLED_BACK,
  FinishReason.DEADLINE,
  FinishReason.ERROR,
]);
