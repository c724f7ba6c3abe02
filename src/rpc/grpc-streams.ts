import { constants, type IncomingHttpHeaders, type ServerHttp2Stream } from "node:http2";
import { create, type DescMethod, fromBinary, type Message, toBinary } from "@bufbuild/protobuf";
import {
  Code,
  ConnectError,
  type ConnectRouterOptions,
  createContextValues,
  type HandlerContext,
  type Interceptor,
  type ServiceImplSpec,
} from "@connectrpc/connect";
import { compressedFlag, compressionNegotiate, type UniversalServerRequest } from "@connectrpc/connect/protocol";
import { contentTypeProto, parseTimeout, setTrailerStatus } from "@connectrpc/connect/protocol-grpc";
import { asNodeHeaders, asWebHeaders, callHandler, copyHeaders, isPlain, type PlainMethod } from "./direct-call.ts";
import { createEnvelopeWriter, ENVELOPE_HEAD_BYTES, type EnvelopeWriter } from "./envelope-writer.ts";
import { resetError } from "./framework-errors.ts";
import type { StreamHandler } from "./http-server.ts";

/**
 * Serves plain gRPC: unary and server-streaming calls, binary, with an uncompressed request, over HTTP/2. That is what
 * generated clients of services send, and what a turn costs most in: Connect's handler passes each message through a
 * dozen async generators that were compiled for older engines, and node's compatibility layer adds its own objects. Measured
 * on streams as fast as they come: a fifth of a turn's processor time (bench/README.md).
 *
 * The list of what it takes is closed. Everything else, and every request that cannot be read, is Connect's: `otherwise`
 * gets it as it came, so that refusals are written in one place. Interceptors, the request gate, contexts, codes,
 * compression of answers and deadlines are as with Connect; a test compares the two on every one of them.
 */
export function createGrpcStreamHandler({
  services,
  options,
  otherwise,
}: {
  readonly services: readonly ServiceImplSpec[];
  readonly options: ConnectRouterOptions;
  /** Answers a request on its stream that turned out to be none for here. */
  otherwise(request: UniversalServerRequest, path: string, stream: ServerHttp2Stream): void;
}): StreamHandler {
  const {
    interceptors = [],
    requestGate,
    acceptCompression = [],
    compressMinBytes = COMPRESS_MIN_BYTES,
    readMaxBytes = Number.MAX_SAFE_INTEGER,
    maxTimeoutMs = Number.MAX_SAFE_INTEGER,
  } = options;
  const methods = new Map<string, PlainMethod>();
  for (const { service, methods: ofService } of services) {
    for (const spec of Object.values(ofService)) {
      if (isPlain(spec)) methods.set(`/${service.typeName}/${spec.method.name}`, spec);
    }
  }
  let knownAuthority = "";
  const isHost = (authority: string): boolean => {
    if (authority === knownAuthority) return true;
    if (!URL.canParse(`http://${authority}`)) return false;
    knownAuthority = authority;
    return true;
  };

  return (stream, headers) => {
    const path = headers[":path"] ?? "";
    const spec = methods.get(path);
    if (spec === undefined || !isPlainRequest(headers)) return false;
    const authority = headers[":authority"] ?? headers.host;
    if (authority === undefined || !isHost(authority)) return false;
    const { timeoutMs, error } = parseTimeout(headers["grpc-timeout"]?.toString() ?? null, maxTimeoutMs);
    if (error !== undefined) return false;

    const url = `${headers[":scheme"] ?? "http"}://${authority}${path}`;
    const header = asWebHeaders(headers);
    const call = beginCall(stream, { spec, url, header, timeoutMs });
    const { response: compression } = compressionNegotiate(
      acceptCompression,
      null,
      header.get("grpc-accept-encoding"),
      "grpc-accept-encoding",
    );
    readBody(stream, ENVELOPE_HEAD_BYTES + readMaxBytes, (body) => {
      const message = body.whole ? parseMessage(spec.method, body.pieces) : undefined;
      if (message === undefined) {
        call.leave();
        otherwise(
          { httpVersion: "2.0", method: "POST", url, header, body: rest(stream, body), signal: call.context.signal },
          path,
          stream,
        );
        return;
      }
      if (compression !== null) call.context.responseHeader.set("grpc-encoding", compression.name);
      const writer = createEnvelopeWriter(stream, () => ({
        "content-type": contentTypeProto,
        ...asNodeHeaders(call.context.responseHeader),
      }));
      const write = (value: Message): Promise<void> | undefined => {
        // A handler's message may be a plain object; of a message, create() makes no other.
        const bytes = toBinary(spec.method.output, create(spec.method.output, value));
        if (compression === null || bytes.byteLength < compressMinBytes) return writer.write(0, bytes);
        return compression.compress(bytes).then((compressed) => writer.write(compressedFlag, compressed));
      };
      void run({ call, spec, message, interceptors, requestGate, writer, write });
    });
    return true;
  };
}

/** Connect's default. */
const COMPRESS_MIN_BYTES = 1_024;

function isPlainRequest(headers: IncomingHttpHeaders): boolean {
  const type = headers["content-type"];
  const encoding = headers["grpc-encoding"];
  return (
    headers[":method"] === "POST" &&
    (type === "application/grpc" || type === "application/grpc+proto") &&
    (encoding === undefined || encoding === "identity") &&
    // A browser's: it gets its headers elsewhere.
    headers.origin === undefined &&
    // Node answers a client that asks before it sends its body.
    headers.expect === undefined
  );
}

/** A call that has begun. */
interface Call {
  readonly context: HandlerContext;
  /** Ends the call's signal, once; what comes after is no news. */
  abort(reason: unknown): void;
  /** Gives up the deadline: another takes the call, and keeps the signal that tells of the client's going. */
  leave(): void;
}

function beginCall(
  stream: ServerHttp2Stream,
  {
    spec: { method },
    url,
    header,
    timeoutMs,
  }: { spec: PlainMethod; url: string; header: Headers; timeoutMs: number | undefined },
): Call {
  const controller = new AbortController();
  let timer: ReturnType<typeof setTimeout> | undefined;
  const abort = (reason: unknown): void => {
    clearTimeout(timer);
    if (!controller.signal.aborted) controller.abort(reason);
  };
  const deadlineMs = timeoutMs === undefined ? undefined : Date.now() + timeoutMs;
  if (timeoutMs !== undefined) {
    const late = (): void => abort(new ConnectError("the operation timed out", Code.DeadlineExceeded));
    if (timeoutMs > 0) timer = setTimeout(late, timeoutMs);
    else late();
  }
  // A stream that breaks is closed as well.
  stream.on("error", () => undefined);
  stream.on("close", () => abort(resetError(stream.rstCode) ?? CALL_OVER));
  const context: HandlerContext = {
    method,
    service: method.parent,
    requestMethod: "POST",
    protocolName: "grpc",
    url,
    signal: controller.signal,
    timeoutMs: () => (deadlineMs === undefined ? undefined : deadlineMs - Date.now()),
    requestHeader: header,
    responseHeader: new Headers(),
    responseTrailer: new Headers(),
    values: createContextValues(),
  };
  return { context, abort, leave: () => clearTimeout(timer) };
}

/** Reason of a signal whose call has ended well. Made once: an AbortController's own costs more than the rest of a call's end. */
const CALL_OVER = new DOMException("the call has ended", "AbortError");

interface Body {
  readonly pieces: readonly Buffer[];
  /** Whether that is all, and no more than may be. */
  readonly whole: boolean;
}

/** Calls back once: at the body's end, when it is too long, or when the client is gone. */
function readBody(stream: ServerHttp2Stream, mostBytes: number, done: (body: Body) => void): void {
  const pieces: Buffer[] = [];
  let bytes = 0;
  const settle = (whole: boolean): void => {
    stream.off("data", onData);
    stream.off("end", onEnd);
    stream.off("close", onClose);
    done({ pieces, whole });
  };
  const onData = (piece: Buffer): void => {
    pieces.push(piece);
    bytes += piece.length;
    if (bytes <= mostBytes) return;
    stream.pause();
    settle(false);
  };
  // A reset ends what is read too.
  const onEnd = (): void => settle(!stream.closed);
  const onClose = (): void => settle(false);
  stream.on("data", onData);
  stream.on("end", onEnd);
  stream.on("close", onClose);
}

/** The one message of a body; undefined: it is no such body. */
function parseMessage({ input }: DescMethod, pieces: readonly Buffer[]): Message | undefined {
  const [first] = pieces;
  if (first === undefined) return undefined;
  const body = pieces.length === 1 ? first : Buffer.concat(pieces);
  if (body.length < ENVELOPE_HEAD_BYTES || body[0] !== 0) return undefined;
  if (body.readUInt32BE(1) !== body.length - ENVELOPE_HEAD_BYTES) return undefined;
  try {
    return fromBinary(input, body.subarray(ENVELOPE_HEAD_BYTES));
  } catch {
    return undefined;
  }
}

/** A body as it came. Of a client that is gone there is no more: that it is cut short is no fault in it, but a cancel. */
async function* rest(stream: ServerHttp2Stream, { pieces, whole }: Body): AsyncGenerator<Uint8Array> {
  if (stream.closed) throw resetError(stream.rstCode) ?? resetError(constants.NGHTTP2_CANCEL);
  yield* pieces;
  if (!whole) yield* stream;
}

async function run({
  call,
  spec,
  message,
  interceptors,
  requestGate,
  writer,
  write,
}: {
  call: Call;
  spec: PlainMethod;
  message: Message;
  interceptors: readonly Interceptor[];
  requestGate: ConnectRouterOptions["requestGate"];
  writer: EnvelopeWriter;
  write(value: Message): Promise<void> | undefined;
}): Promise<void> {
  const { context } = call;
  try {
    const answer = await callHandler({ spec, message, context, interceptors, requestGate });
    if (answer.stream) await writeAll(answer.message, writer, write);
    else await write(answer.message);
    copyHeaders(answer.trailer, context.responseTrailer);
    call.abort(CALL_OVER);
    writer.end(asNodeHeaders(setTrailerStatus(context.responseTrailer, undefined)));
  } catch (thrown) {
    const error =
      thrown instanceof ConnectError ? thrown : new ConnectError("internal error", Code.Internal, {}, [], thrown);
    // The gate, which listens, puts our words for Connect's.
    call.abort(error);
    writer.end(asNodeHeaders(setTrailerStatus(context.responseTrailer, error)));
  }
}

async function writeAll(
  messages: AsyncIterable<Message>,
  writer: EnvelopeWriter,
  write: (value: Message) => Promise<void> | undefined,
): Promise<void> {
  for await (const message of messages) {
    if (writer.closed) return;
    const drained = write(message);
    if (drained !== undefined) await drained;
  }
}
