import type { IncomingHttpHeaders } from "node:http";
import {
  create,
  type DescMessage,
  type DescMethod,
  type DescMethodServerStreaming,
  type DescMethodUnary,
  type Message,
  type MessageInitShape,
  type MessageShape,
} from "@bufbuild/protobuf";
import {
  Code,
  ConnectError,
  type ConnectRouter,
  type ConnectRouterOptions,
  type ContextValues,
  createConnectRouter,
  createContextValues,
  createServiceImplSpec,
  type HandlerContext,
  type Interceptor,
  type MethodImplSpec,
  type ServiceImplSpec,
  type StreamRequest,
  type StreamResponse,
  type UnaryRequest,
  type UnaryResponse,
} from "@connectrpc/connect";

/** A method with one request message. */
export type PlainMethod = Extract<MethodImplSpec, { kind: "unary" | "server_streaming" }>;

export function isPlain(spec: MethodImplSpec): spec is PlainMethod {
  return spec.kind === "unary" || spec.kind === "server_streaming";
}

/** Gives a router its services. */
export type RpcRoutes = (router: ConnectRouter) => void;

/** The services that routes declare; a router that is given gets them too. Options of their own are Connect's to obey: those are left out. */
export function servicesOf(routes: RpcRoutes, router = createConnectRouter()): ServiceImplSpec[] {
  const services: ServiceImplSpec[] = [];
  routes({
    ...router,
    service(desc, implementation, options) {
      router.service(desc, implementation, options);
      if (options === undefined) services.push(createServiceImplSpec(desc, implementation));
      return this;
    },
  });
  return services;
}

/** Calls a handler behind the request gate and the interceptors, as Connect does; headers of the answer stand in the context. */
export async function callHandler({
  spec,
  message,
  context,
  interceptors,
  requestGate,
}: {
  spec: PlainMethod;
  message: Message;
  context: HandlerContext;
  interceptors: readonly Interceptor[];
  requestGate: ConnectRouterOptions["requestGate"];
}): Promise<UnaryResponse | StreamResponse> {
  await requestGate?.(context);
  const { request, invoke } = invocation(spec, context, message);
  const answer = await interceptors.reduceRight((next, interceptor) => interceptor(next), invoke)(request);
  copyHeaders(answer.header, context.responseHeader);
  return answer;
}

/** Where a call within the process comes from. */
export interface LocalCall {
  /** Headers of the request that it is made for: credentials, request id and trace are in them. */
  readonly header: Headers;
  /** Aborted when whoever waits for the answer is gone, with a ConnectError that says so. */
  readonly signal: AbortSignal;
  /** Gets the headers of the answer. */
  readonly responseHeader: Headers;
  /** Where the request came in, for a handler that asks: `openai`, `rest`. */
  readonly door: string;
  readonly values?: ContextValues;
}

/**
 * Calls RPCs within the process, for routes that say the same in another form. What stands around every RPC stands around
 * these calls too: they are authenticated, logged, counted and traced as the RPCs that they are. Reject with ConnectErrors.
 */
export interface LocalCalls {
  unary<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    message: MessageInitShape<I>,
    call: LocalCall,
  ): Promise<MessageShape<O>>;
  stream<I extends DescMessage, O extends DescMessage>(
    method: DescMethodServerStreaming<I, O>,
    message: MessageInitShape<I>,
    call: LocalCall,
  ): AsyncGenerator<MessageShape<O>, void>;
}

export function createLocalCalls({
  routes,
  options: { interceptors = [], requestGate },
}: {
  /** As the wire's router gets them. */
  routes: RpcRoutes;
  options: Pick<ConnectRouterOptions, "interceptors" | "requestGate">;
}): LocalCalls {
  const services = servicesOf(routes);
  const answerTo = (method: DescMethod, message: Message, call: LocalCall) => {
    const spec = services.find(({ service }) => service.typeName === method.parent.typeName)?.methods[method.localName];
    if (spec === undefined || !isPlain(spec)) throw new TypeError(`${method.name} is not served here`);
    const context: HandlerContext = {
      method,
      service: method.parent,
      requestMethod: "POST",
      protocolName: call.door,
      url: `http://localhost/${method.parent.typeName}/${method.name}`,
      signal: call.signal,
      timeoutMs: () => undefined,
      requestHeader: call.header,
      responseHeader: call.responseHeader,
      responseTrailer: new Headers(),
      values: call.values ?? createContextValues(),
    };
    return callHandler({ spec, message, context, interceptors, requestGate });
  };
  return {
    async unary(method, message, call) {
      const answer = await answerTo(method, create(method.input, message), call);
      return answer.message as MessageShape<typeof method.output>;
    },
    async *stream(method, message, call) {
      const answer = await answerTo(method, create(method.input, message), call);
      yield* answer.message as AsyncIterable<MessageShape<typeof method.output>>;
    },
  };
}

type AnyFn = ReturnType<Interceptor>;

/** The request as interceptors see it, and what calls the handler behind them. */
function invocation(
  spec: PlainMethod,
  context: HandlerContext,
  message: Message,
): { request: UnaryRequest | StreamRequest; invoke: AnyFn } {
  const { method } = spec;
  const common = {
    service: method.parent,
    requestMethod: context.requestMethod,
    url: context.url,
    signal: context.signal,
    header: context.requestHeader,
    contextValues: context.values,
  };
  const answer = { service: method.parent, header: context.responseHeader, trailer: context.responseTrailer };
  // What an interceptor has put in the request's place counts.
  const contextOf = (given: UnaryRequest | StreamRequest): HandlerContext =>
    given === request
      ? context
      : { ...context, requestHeader: given.header, signal: given.signal, values: given.contextValues };
  let request: UnaryRequest | StreamRequest;
  if (spec.kind === "unary") {
    request = { ...common, stream: false, method: spec.method, message };
    const invoke = async (given: UnaryRequest): Promise<UnaryResponse> => {
      const output = await spec.impl(given.message, contextOf(given));
      return { ...answer, stream: false, method: spec.method, message: create(method.output, output) };
    };
    return { request, invoke: invoke as AnyFn };
  }
  request = { ...common, stream: true, method: spec.method, message: once(message) };
  const invoke = async (given: StreamRequest): Promise<StreamResponse> => {
    const input = given === request ? message : await only(given.message);
    const output = spec.impl(input, contextOf(given));
    return { ...answer, stream: true, method: spec.method, message: output as AsyncIterable<Message> };
  };
  return { request, invoke: invoke as AnyFn };
}

async function* once<T>(value: T): AsyncGenerator<T> {
  yield value;
}

async function only(messages: AsyncIterable<Message>): Promise<Message> {
  for await (const message of messages) return message;
  throw new ConnectError("protocol error: missing input message", Code.Unimplemented);
}

export function asWebHeaders(headers: IncomingHttpHeaders): Headers {
  const web = new Headers();
  for (const [name, value] of Object.entries(headers)) {
    if (value === undefined || name.startsWith(":")) continue;
    for (const one of Array.isArray(value) ? value : [value]) web.append(name, one);
  }
  return web;
}

export function asNodeHeaders(headers: Headers): Record<string, string> {
  const node: Record<string, string> = {};
  headers.forEach((value, name) => {
    node[name] = value;
  });
  return node;
}

export function copyHeaders(from: Headers, to: Headers): void {
  if (from === to) return;
  for (const name of [...to.keys()]) to.delete(name);
  from.forEach((value, name) => {
    to.set(name, value);
  });
}
