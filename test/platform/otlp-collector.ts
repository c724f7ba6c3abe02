import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { buffer } from "node:stream/consumers";
import { BinaryReader, WireType } from "@bufbuild/protobuf/wire";

/** A span as a collector gets it. */
export interface ReceivedSpan {
  readonly name: string;
  readonly traceId: string;
  readonly spanId: string;
  /** Empty: the root. */
  readonly parentSpanId: string;
  /** As OTLP numbers them: 1 internal, 2 server, 3 client. */
  readonly kind: number;
  readonly attributes: Readonly<Record<string, unknown>>;
  /** 0 unset, 1 ok, 2 error. */
  readonly statusCode: number;
  readonly statusMessage: string;
  readonly events: number;
  readonly resource: Readonly<Record<string, unknown>>;
}

export interface OtlpCollector {
  /** Base URL, without a path. */
  readonly url: string;
  readonly spans: readonly ReceivedSpan[];
  /** Paths and content types of the requests. */
  readonly requests: readonly { readonly path: string; readonly contentType: string }[];
  /** All bytes received, as Latin-1 text, to search for what must not be in them. */
  readonly raw: () => string;
  close(): Promise<void>;
}

/** A collector on loopback that takes traces by OTLP over HTTP as protobuf and answers with `status`. */
export async function startOtlpCollector({ status = 200 } = {}): Promise<OtlpCollector> {
  const spans: ReceivedSpan[] = [];
  const requests: { path: string; contentType: string }[] = [];
  const bodies: Buffer[] = [];
  const server = createServer(async (request, response) => {
    const body = await buffer(request);
    bodies.push(body);
    requests.push({ path: request.url ?? "", contentType: request.headers["content-type"] ?? "" });
    spans.push(...spansOf(body));
    response.writeHead(status, { "content-type": "application/x-protobuf" }).end();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    spans,
    requests,
    raw: () => Buffer.concat(bodies).toString("latin1"),
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

/** Field numbers are those of opentelemetry/proto/{collector/trace,trace,common}/v1. */
function spansOf(request: Uint8Array): ReceivedSpan[] {
  return fields(request)
    .bytes(1)
    .flatMap((resourceSpans) => {
      const [resource = EMPTY] = fields(resourceSpans).bytes(1);
      const scopes = fields(resourceSpans).bytes(2);
      const spans = scopes.flatMap((scope) => fields(scope).bytes(2));
      return spans.map((span) => asSpan(fields(span), attributesOf(fields(resource).bytes(1))));
    });
}

function asSpan(span: Fields, resource: ReceivedSpan["resource"]): ReceivedSpan {
  const [traceId = EMPTY] = span.bytes(1);
  const [spanId = EMPTY] = span.bytes(2);
  const [parentSpanId = EMPTY] = span.bytes(4);
  const [name = EMPTY] = span.bytes(5);
  const [status = EMPTY] = span.bytes(15);
  const [statusMessage = EMPTY] = fields(status).bytes(2);
  return {
    name: text(name),
    traceId: hex(traceId),
    spanId: hex(spanId),
    parentSpanId: hex(parentSpanId),
    kind: Number(span.numbers(6)[0] ?? 0),
    attributes: attributesOf(span.bytes(9)),
    statusCode: Number(fields(status).numbers(3)[0] ?? 0),
    statusMessage: text(statusMessage),
    events: span.bytes(11).length,
    resource,
  };
}

function attributesOf(keyValues: readonly Uint8Array[]): Record<string, unknown> {
  return Object.fromEntries(
    keyValues.map((keyValue) => {
      const [key = EMPTY, value = EMPTY] = [fields(keyValue).bytes(1)[0], fields(keyValue).bytes(2)[0]];
      return [text(key), anyValue(value)];
    }),
  );
}

function anyValue(value: Uint8Array): unknown {
  const any = fields(value);
  const [string] = any.bytes(1);
  if (string !== undefined) return text(string);
  const [array] = any.bytes(5);
  if (array !== undefined) return fields(array).bytes(1).map(anyValue);
  const [number] = [...any.numbers(3), ...any.numbers(4), ...any.numbers(2)];
  return number;
}

interface Fields {
  bytes(field: number): Uint8Array[];
  numbers(field: number): number[];
}

/** The fields of any message, by number. */
function fields(message: Uint8Array): Fields {
  const found: { field: number; value: Uint8Array | number }[] = [];
  const reader = new BinaryReader(message);
  while (reader.pos < reader.len) {
    const [field, wireType] = reader.tag();
    if (wireType === WireType.LengthDelimited) found.push({ field, value: reader.bytes() });
    else if (wireType === WireType.Varint) found.push({ field, value: Number(reader.int64()) });
    else if (wireType === WireType.Bit64) found.push({ field, value: reader.double() });
    else reader.skip(wireType, field);
  }
  const of = (field: number) => found.filter((each) => each.field === field).map(({ value }) => value);
  return {
    bytes: (field) => of(field).filter((value) => typeof value !== "number"),
    numbers: (field) => of(field).filter((value) => typeof value === "number"),
  };
}

const EMPTY = new Uint8Array();

function text(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString();
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}
