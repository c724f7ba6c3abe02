import type { HandlerContext } from "@connectrpc/connect";

/** Says which release began a session. Whoever sends it back is routed to that release, while it gets traffic. */
export const SESSION_VERSION_HEADER = "x-parley-version";

/** The same for browsers, which send it back by themselves. */
const SESSION_VERSION_COOKIE = "parley-version";

/**
 * Tells the caller which release began the session that it works with; nothing where that is not known. Before a stream's
 * first message. A browser gets a cookie as well: what it last used is where its next call goes.
 */
export function tellVersion(
  { requestHeader, responseHeader }: Pick<HandlerContext, "requestHeader" | "responseHeader">,
  version: string,
): void {
  if (version === "") return;
  responseHeader.set(SESSION_VERSION_HEADER, version);
  // Fetch metadata: every browser sends it, and nobody else does.
  if (requestHeader.has("sec-fetch-mode"))
    responseHeader.append("set-cookie", `${SESSION_VERSION_COOKIE}=${version}; Path=/; HttpOnly; SameSite=Lax`);
}
