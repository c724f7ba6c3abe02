import { once } from "node:events";
import * as http from "node:http";
import * as http2 from "node:http2";
import { buffer } from "node:stream/consumers";
import { Code, ConnectError } from "@connectrpc/connect";
import { encodeEnvelope } from "@connectrpc/connect/protocol";
import { endStreamFlag, endStreamFromJson, errorFromJsonBytes } from "@connectrpc/connect/protocol-connect";
import { findTrailerError } from "@connectrpc/connect/protocol-grpc";
import { trailerFlag, trailerParse } from "@connectrpc/connect/protocol-grpc-web";
import type { Wire } from "./wires.ts";

export interface RawRequest {
  readonly path: string;
  /** Default: POST. */
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array;
}

export interface RawAnswer {
  readonly status: number;
  readonly header: Headers;
  readonly trailer: Headers;
  readonly body: Buffer;
  /** Everything that came, to search for what must not be in it. */
  readonly text: string;
}

/** Sends bytes that no client would and gives back what came, whatever it is. */
export async function sendRaw(
  url: string,
  { method = "POST", path, headers = {}, body = new Uint8Array() }: RawRequest,
  httpVersion: Wire["httpVersion"],
): Promise<RawAnswer> {
  const send = httpVersion === "2" ? sendHttp2 : sendHttp1;
  const answer = await send(url, { method, path, headers, body });
  const all = [...answer.header, ...answer.trailer].map(([name, value]) => `${name}: ${decodeHeader(name, value)}\n`);
  return { ...answer, text: all.join("") + answer.body.toString("latin1") };
}

/** The content type of a protocol's messages. A streaming RPC has another in Connect. */
export function contentTypeOf({ protocol, json }: Pick<Wire, "protocol" | "json">, stream: boolean): string {
  const format = json ? "json" : "proto";
  if (protocol === "connect") return stream ? `application/connect+${format}` : `application/${format}`;
  return `application/${protocol}+${format}`;
}

/** A message as it goes over the wire: in an envelope, but for Connect's unary calls. */
export function framed({ protocol }: Pick<Wire, "protocol">, stream: boolean, message: Uint8Array): Uint8Array {
  return protocol === "connect" && !stream ? message : encodeEnvelope(0, message);
}

/** The error that an answer carries in its protocol's form; undefined: it carries none. */
export function errorOf(
  { protocol }: Pick<Wire, "protocol">,
  stream: boolean,
  answer: RawAnswer,
): ConnectError | undefined {
  switch (protocol) {
    case "grpc":
      return findTrailerError(answer.header) ?? findTrailerError(answer.trailer);
    case "grpc-web": {
      const trailers = envelopes(answer.body).filter(({ flags }) => flags === trailerFlag);
      const inBody = trailers.map(({ data }) => findTrailerError(trailerParse(data)));
      return findTrailerError(answer.header) ?? inBody.at(-1);
    }
    case "connect": {
      const type = answer.header.get("content-type");
      if (stream && type?.startsWith("application/connect+") === true) {
        const last = envelopes(answer.body).at(-1);
        return last?.flags === endStreamFlag ? endStreamFromJson(last.data).error : undefined;
      }
      if (answer.status === 200) return undefined;
      return errorFromJsonBytes(answer.body, undefined, new ConnectError("no error in Connect's form", Code.Unknown));
    }
  }
}

/** The envelopes of a body. */
export function envelopes(body: Buffer): { flags: number; data: Buffer }[] {
  const found: { flags: number; data: Buffer }[] = [];
  for (let offset = 0; offset + 5 <= body.length; ) {
    const length = body.readUInt32BE(offset + 1);
    found.push({ flags: body[offset] ?? 0, data: body.subarray(offset + 5, offset + 5 + length) });
    offset += 5 + length;
  }
  return found;
}

type Sent = Required<RawRequest>;
type Received = Omit<RawAnswer, "text">;

async function sendHttp1(url: string, { method, path, headers, body }: Sent): Promise<Received> {
  const request = http.request(url + path, { method, headers, agent: new http.Agent() });
  request.end(body);
  const [response] = (await once(request, "response")) as [http.IncomingMessage];
  const bytes = await buffer(response);
  return {
    status: response.statusCode ?? 0,
    header: asHeaders(response.headers),
    trailer: asHeaders(response.trailers),
    body: bytes,
  };
}

async function sendHttp2(url: string, { method, path, headers, body }: Sent): Promise<Received> {
  const session = http2.connect(url);
  try {
    const stream = session.request({ ":method": method, ":path": path, ...headers }, { endStream: method === "GET" });
    let trailer = new Headers();
    stream.on("trailers", (received) => {
      trailer = asHeaders(received);
    });
    // A server may answer before it has read everything.
    const answered = once(stream, "response") as Promise<[http2.IncomingHttpHeaders]>;
    if (method !== "GET") stream.end(body);
    const [received] = await answered;
    const bytes = await buffer(stream);
    return { status: Number(received[":status"]), header: asHeaders(received), trailer, body: bytes };
  } finally {
    session.close();
  }
}

function asHeaders(raw: NodeJS.Dict<string | string[] | number>): Headers {
  const headers = new Headers();
  for (const [name, value] of Object.entries(raw)) {
    if (name.startsWith(":") || value === undefined) continue;
    for (const one of [value].flat()) headers.append(name, String(one));
  }
  return headers;
}

function decodeHeader(name: string, value: string): string {
  if (name.endsWith("-bin")) return Buffer.from(value, "base64").toString("latin1");
  return name === "grpc-message" ? decodeURIComponent(value) : value;
}
