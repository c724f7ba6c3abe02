import type { MessageInitShape } from "@bufbuild/protobuf";
import { OnBusy, OnDisconnect, type StreamChatRequestSchema } from "../../gen/parley/chat/v1/chat_service_pb.js";

/** A message as it was sent, known until its turn has ended: by it every tab of this browser finds the turn again. */
export interface SentTurn {
  /** The idempotency key: whoever sends the message once more gets the same turn. */
  readonly key: string;
  readonly userId: string;
  /** Empty until the service names the session that the message begins. */
  readonly sessionId: string;
  /** Empty until the turn has begun. */
  readonly turnId: string;
  /** Empty: the approvals are all that is said. */
  readonly message: string;
  /** Answers to what the session's last turn asks. */
  readonly approvals: readonly Approval[];
  /** Empty: the default. */
  readonly agentTeam: string;
  /** Ends the running turn instead of waiting for it. */
  readonly interrupts: boolean;
  /** When it was sent, by this machine's clock, in milliseconds. */
  readonly sentMs: number;
}

/** A person's answer to a tool call that waits for it. */
export interface Approval {
  readonly toolCallId: string;
  readonly approved: boolean;
  /** Told to the model where the call is not approved; may be empty. */
  readonly comment: string;
}

/** The request that begins the turn: the same one each time, as the service compares it with the first. */
export function requestOf({
  key,
  userId,
  sessionId,
  message,
  approvals,
  agentTeam,
  interrupts,
}: SentTurn): MessageInitShape<typeof StreamChatRequestSchema> {
  return {
    sessionId,
    message,
    approvals: [...approvals],
    userId,
    agentTeam,
    idempotencyKey: key,
    onBusy: interrupts ? OnBusy.INTERRUPT : OnBusy.ENQUEUE,
    onDisconnect: OnDisconnect.CONTINUE,
    ...(sessionId === "" ? { metadata: { title: titleOf(message) } } : {}),
  };
}

/** Longest title of a session in code points. */
const TITLE_CODE_POINTS = 60;

/** A session is called by how it began. */
function titleOf(message: string): string {
  const [line = ""] = message.trim().split(/[\r\n]/, 1);
  const points = [...line];
  return points.length <= TITLE_CODE_POINTS ? line : `${points.slice(0, TITLE_CODE_POINTS - 1).join("")}…`;
}
