import type { JsonObject, JsonValue } from "@bufbuild/protobuf";
import {
  type ChatRequest,
  OnBusy,
  OnDisconnect,
  type PreviewChatRequest,
  type StreamChatRequest,
} from "../../gen/parley/chat/v1/chat_service_pb.js";
import type { CreateSessionRequest } from "../../gen/parley/chat/v1/session_service_pb.js";
import { WrongFields } from "../failure.ts";

/** Longest message in Unicode code points (DESIGN §3). */
const MESSAGE_CODE_POINTS = 10_000;
const USER_ID_CODE_POINTS = 256;
/** Tool calls of a model's reply at most. */
const APPROVALS = 128;
/**
 * Bounds of `metadata` (DESIGN §3). Levels: readers of protobuf give up at a depth of 100 messages, and a level of a
 * Struct is two or three of them, so that what JSON lets in deeper than this could be stored and never read again.
 */
const METADATA = { keys: 64, bytes: 16 * 1_024, levels: 32 } as const;

/** Checks what Chat, StreamChat and PreviewChat ask for. INVALID_FIELD names all the fields that are wrong. */
export function checkChatRequest(
  request: ChatRequest | PreviewChatRequest | StreamChatRequest,
  {
    maxTokens,
    userId = request.userId,
  }: {
    /** Largest max_tokens that may be asked for. */
    maxTokens: number;
    /** The user that the call acts for, where the credentials settle it. */
    userId?: string;
  },
): void {
  const wrong = new Wrong();
  if (request.sessionId !== "") wrong.unless(isName(request.sessionId, 128), "session_id", NAME_RULE);
  if (request.message !== "" || request.approvals.length === 0)
    wrong.text(request.message, { field: "message", most: MESSAGE_CODE_POINTS, lineEnds: true });
  wrong.approvals(request);
  wrong.text(userId, { field: "user_id", most: USER_ID_CODE_POINTS });
  wrong.metadata(request.metadata);
  wrong.unless(
    /^[\x21-\x7e]{0,128}$/.test(request.idempotencyKey),
    "idempotency_key",
    "must be at most 128 printable ASCII characters",
  );
  if (request.agentTeam !== "") wrong.text(request.agentTeam, { field: "agent_team", most: 128 });
  if (request.useCase !== "")
    wrong.unless(isName(request.useCase, 64), "use_case", "must be at most 64 characters of [A-Za-z0-9._-]");
  wrong.unless(request.maxTokens >= 0 && request.maxTokens <= maxTokens, "max_tokens", `must be 0 to ${maxTokens}`);
  wrong.unless(OnBusy[request.onBusy] !== undefined, "on_busy", "must be a value of OnBusy");
  wrong.unless(OnDisconnect[request.onDisconnect] !== undefined, "on_disconnect", "must be a value of OnDisconnect");
  wrong.throwIfAny();
}

export function checkCreateSessionRequest(request: CreateSessionRequest, { userId = request.userId } = {}): void {
  const wrong = new Wrong();
  if (request.sessionId !== "") wrong.unless(isName(request.sessionId, 128), "session_id", NAME_RULE);
  wrong.text(userId, { field: "user_id", most: USER_ID_CODE_POINTS });
  wrong.metadata(request.metadata);
  wrong.throwIfAny();
}

/** Checks a page's size and, where the list is a user's, whose. */
export function checkListRequest(request: { pageSize: number; userId?: string }, { userIdNeeded = true } = {}): void {
  const wrong = new Wrong();
  if (userIdNeeded) wrong.text(request.userId ?? "", { field: "user_id", most: USER_ID_CODE_POINTS });
  wrong.unless(request.pageSize >= 0, "page_size", "must not be negative; 0 stands for the default");
  wrong.throwIfAny();
}

export function checkSessionId(sessionId: string): void {
  const wrong = new Wrong();
  wrong.unless(isName(sessionId, 128), "session_id", NAME_RULE);
  wrong.throwIfAny();
}

export function checkAfterSequence(afterSequence: bigint): void {
  const wrong = new Wrong();
  wrong.unless(afterSequence >= 0n, "after_sequence", "must not be negative; 0 stands for all events");
  wrong.throwIfAny();
}

export function checkMetadata(metadata: JsonObject | undefined): void {
  const wrong = new Wrong();
  wrong.metadata(metadata);
  wrong.throwIfAny();
}

const NAME_RULE = "must be 1 to 128 characters of [A-Za-z0-9._-]";

function isName(text: string, most: number): boolean {
  return text.length >= 1 && text.length <= most && /^[A-Za-z0-9._-]+$/.test(text);
}

class Wrong extends WrongFields {
  text(text: string, { field, most, lineEnds = false }: { field: string; most: number; lineEnds?: boolean }): void {
    const points = codePointCount(text, most);
    // The rule is written only when it is broken: numbers are slow to format.
    if (points < 1 || points > most)
      this.unless(false, field, `must have 1 to ${most.toLocaleString("en")} characters`);
    this.unless(text.isWellFormed(), field, "must be valid Unicode");
    const control = lineEnds ? FORBIDDEN_IN_TEXT : FORBIDDEN_IN_LINE;
    const but = lineEnds ? " but tab and line ends" : "";
    this.unless(!control.test(text), field, `must have no control characters${but}`);
  }

  metadata(metadata: JsonObject | undefined): void {
    if (metadata === undefined) return;
    this.unless(Object.keys(metadata).length <= METADATA.keys, "metadata", `must have at most ${METADATA.keys} keys`);
    const levels = `must be nested at most ${METADATA.levels} levels deep`;
    const isShallow = isNestedAtMost(METADATA.levels, metadata);
    this.unless(isShallow, "metadata", levels);
    // What goes on from here goes down to every level.
    if (!isShallow) return;
    this.unless(isKeepable(metadata), "metadata", "must have valid Unicode and finite numbers only");
    const bytes = new TextEncoder().encode(JSON.stringify(metadata)).byteLength;
    this.unless(bytes <= METADATA.bytes, "metadata", `must be at most ${METADATA.bytes} bytes as JSON`);
  }

  approvals({ approvals, sessionId }: Pick<ChatRequest, "approvals" | "sessionId">): void {
    if (approvals.length === 0) return;
    this.unless(sessionId !== "", "session_id", "must be the session that asks, with approvals");
    this.unless(approvals.length <= APPROVALS, "approvals", `must be at most ${APPROVALS}`);
    const ids = new Set(approvals.map(({ toolCallId }) => toolCallId));
    this.unless(ids.size === approvals.length && !ids.has(""), "approvals", "must each have a tool_call_id of its own");
    for (const { comment } of approvals.slice(0, APPROVALS)) {
      if (comment !== "") this.text(comment, { field: "approvals.comment", most: MESSAGE_CODE_POINTS, lineEnds: true });
    }
  }
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const FORBIDDEN_IN_TEXT = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f]/;
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const FORBIDDEN_IN_LINE = /[\u0000-\u001f\u007f-\u009f]/;

/** Whether objects and arrays are nested this deep at most. */
function isNestedAtMost(levels: number, value: JsonValue): boolean {
  if (typeof value !== "object" || value === null) return true;
  return levels > 0 && Object.values(value).every((inner) => isNestedAtMost(levels - 1, inner));
}

/** Whether it is stored and read again as it is: lone surrogates have no UTF-8, and JSON has no NaN and no Infinity. */
function isKeepable(value: JsonValue): boolean {
  if (typeof value === "string") return value.isWellFormed();
  if (typeof value === "number") return Number.isFinite(value);
  if (typeof value !== "object" || value === null) return true;
  return Object.entries(value).every(([key, inner]) => key.isWellFormed() && isKeepable(inner));
}

/** Code points of a text; counting stops past `most`, whatever the length. A text of no more code units needs no count. */
function codePointCount(text: string, most: number): number {
  if (text.length <= most) return text.length;
  let count = 0;
  for (const _ of text) if (++count > most) break;
  return count;
}
