import type { StreamChatResponse } from "../../gen/parley/chat/v1/chat_service_pb.js";
import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";

/** Why a completion ended, in the words of OpenAI's API. Ends that are none of these end the call with an error. */
export function finishReasonOf(reason: FinishReason): "stop" | "length" | "content_filter" {
  switch (reason) {
    case FinishReason.MAX_ROUNDS:
    case FinishReason.TOKEN_BUDGET:
    case FinishReason.BUDGET_EXHAUSTED:
      return "length";
    case FinishReason.CONTENT_FILTER:
    case FinishReason.GUARDRAIL:
      return "content_filter";
    default:
      return "stop";
  }
}

/** Text went out that has turned out void, and what took its place does not go on from it. */
export class TextUnsaid extends Error {}

/** Stands between two messages of a turn: a completion is one text. */
const BETWEEN_MESSAGES = "\n\n";

/** Makes the one text of a completion of a turn's events: all that its agents said, in order. */
export interface ReplyText {
  /** The text that an event adds, maybe none. Throws {@link TextUnsaid}. */
  add(event: StreamChatResponse["event"]): string;
}

/**
 * As it comes. A replica that takes a turn over says the cut message anew: as far as that is what went out before, it is
 * not said twice. Nothing can be unsaid here, so that a message that goes another way is the caller's to ask for again.
 */
export function streamedReply(): ReplyText {
  let saidBefore = false;
  /** Of the message that is being said: what went out, and where it was restarted what is said again of it. */
  let sent = "";
  let again: string | undefined;
  const send = (text: string): string => {
    const before = sent === "" && saidBefore ? BETWEEN_MESSAGES : "";
    sent += text;
    return before + text;
  };
  return {
    add(event) {
      switch (event.case) {
        case "textDelta": {
          if (again === undefined) return send(event.value.text);
          again += event.value.text;
          if (sent.startsWith(again)) return "";
          if (!again.startsWith(sent)) throw new TextUnsaid();
          const more = again.slice(sent.length);
          again = undefined;
          return send(more);
        }
        case "stepRestarted":
          if (sent !== "") again = "";
          return "";
        case "messageCompleted":
        case "turnCompleted":
          if (again !== undefined && again !== sent) throw new TextUnsaid();
          saidBefore ||= sent !== "";
          sent = "";
          again = undefined;
          return "";
        default:
          return "";
      }
    },
  };
}

/** Message by message, each when nothing of it can be void any more. */
export function completedReply(): ReplyText {
  let saidBefore = false;
  return {
    add(event) {
      if (event.case !== "messageCompleted" || event.value.content === "") return "";
      const before = saidBefore ? BETWEEN_MESSAGES : "";
      saidBefore = true;
      return before + event.value.content;
    },
  };
}
