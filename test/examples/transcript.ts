import type { StreamChatResponse } from "../../gen/parley/chat/v1/chat_service_pb.js";
import { ToolOutcome } from "../../gen/parley/chat/v1/turn_event_pb.js";
import { FinishReason } from "../../gen/parley/chat/v1/turn_pb.js";

/** What begins a line that a person says in a transcript. */
export const PERSON = "you> ";

/** A turn as the examples' READMEs have it: a line for each thing that is seen. */
export function transcriptOf(events: readonly Pick<StreamChatResponse, "event">[]): string[] {
  return events.flatMap(({ event }): string[] => {
    switch (event.case) {
      case "messageCompleted":
        return [`${event.value.agent}: ${event.value.content}`];
      case "speakerSelected":
        return [`(${event.value.agent} speaks next)`];
      case "handoff":
        return [`(${event.value.fromAgent} hands over to ${event.value.toAgent})`];
      case "toolCallCompleted": {
        const { tool, outcome, content } = event.value;
        return [`(${tool}: ${ToolOutcome[outcome]}, ${content})`];
      }
      case "approvalRequired":
        return [`(approval needed: ${event.value.tool} ${event.value.argumentsJson})`];
      case "inputRequired":
        return [`(${event.value.agent} asks)`];
      case "guardrailTripped":
        return [`(guardrail: ${event.value.guardrail})`];
      case "turnCompleted": {
        const { finishReason, termination } = event.value;
        return [`(${[FinishReason[finishReason], termination].filter(Boolean).join(", ")})`];
      }
      default:
        return [];
    }
  });
}
