import { Failure } from "../failure.ts";

/** The list that a page token belongs to. */
export interface PagedList {
  readonly kind: "sessions" | "messages";
  readonly tenant: string;
  /** The user or the session whose list it is. */
  readonly of: string;
}

/**
 * Makes a page token out of a place in a list. The token is bound to its list by a checksum, so that a token of another
 * list, or one that was made up, is refused. It is no secret and grants nothing: who may read is checked on every call.
 */
export function sealPageToken(place: string, list: PagedList): string {
  return utf8.encode(`${checksum(place, list)}:${place}`).toBase64({ alphabet: "base64url", omitPadding: true });
}

/** The place that a token stands for; undefined for an empty token: the list's begin. INVALID_FIELD: not a token of this list. */
export function openPageToken(token: string, list: PagedList): string | undefined {
  if (token === "") return undefined;
  const [sum, ...rest] = decode(token).split(":");
  const place = rest.join(":");
  if (place === "" || sum !== checksum(place, list)) {
    throw new Failure("INVALID_FIELD", {
      fields: [{ field: "page_token", description: "must be the next_page_token of the same list, unchanged" }],
    });
  }
  return place;
}

const utf8 = new TextEncoder();

function decode(token: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(Uint8Array.fromBase64(token, { alphabet: "base64url" }));
  } catch {
    return "";
  }
}

/** 64-bit FNV-1a (http://www.isthe.com/chongo/tech/comp/fnv/). */
function checksum(place: string, { kind, tenant, of }: PagedList): string {
  let hash = 0xcbf29ce484222325n;
  for (const byte of utf8.encode(JSON.stringify([kind, tenant, of, place]))) {
    hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n);
  }
  return hash.toString(36);
}
