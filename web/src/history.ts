import type { Parley } from "../../client/client.ts";
import type { Message } from "../../gen/parley/chat/v1/message_pb.js";

/** Messages per page. */
const PAGE_SIZE = 100;

/** The end of a session's history, and how to get at what is before it. */
export interface History {
  /** Oldest first. */
  readonly messages: readonly Message[];
  /** Tokens of the pages before them, oldest first. */
  readonly olderTokens: readonly string[];
}

export const EMPTY_HISTORY: History = { messages: [], olderTokens: [] };

/**
 * Reads a session's last messages. The service pages from the oldest on, so that this walks through all pages; it keeps
 * the last two, and the tokens of those before. Rejects as ListMessages does.
 */
export async function readLatest(parley: Parley, sessionId: string): Promise<History> {
  const tokens: string[] = [];
  let pages: Message[][] = [];
  let pageToken = "";
  do {
    tokens.push(pageToken);
    const page = await parley.sessions.listMessages({ sessionId, pageSize: PAGE_SIZE, pageToken });
    pages = [...pages.slice(-1), page.messages];
    pageToken = page.nextPageToken;
  } while (pageToken !== "");
  return { messages: pages.flat(), olderTokens: tokens.slice(0, -pages.length) };
}

/** The history with one more page in front. */
export async function readOlder(parley: Parley, sessionId: string, history: History): Promise<History> {
  const pageToken = history.olderTokens.at(-1);
  if (pageToken === undefined) return history;
  const page = await parley.sessions.listMessages({ sessionId, pageSize: PAGE_SIZE, pageToken });
  return { messages: [...page.messages, ...history.messages], olderTokens: history.olderTokens.slice(0, -1) };
}
