import {
  type Attributes,
  context,
  createContextKey,
  type Span,
  SpanKind,
  SpanStatusCode,
  TraceFlags,
  trace,
} from "@opentelemetry/api";
import type { CallUsage, Model, ModelRequest } from "../engine/model.ts";
import { ModelCallFailure } from "../engine/model.ts";
import { type Tool, withCall } from "../engine/tool.ts";
import { Failure } from "../failure.ts";

/**
 * Names of the attributes of a turn's spans: OpenTelemetry's semantic conventions for generative AI where they have one.
 * Content (messages, system instructions, tool arguments) is never among them.
 */
export const SPAN_ATTRIBUTES = {
  operation: "gen_ai.operation.name",
  provider: "gen_ai.provider.name",
  agent: "gen_ai.agent.name",
  conversation: "gen_ai.conversation.id",
  requestModel: "gen_ai.request.model",
  temperature: "gen_ai.request.temperature",
  maxTokens: "gen_ai.request.max_tokens",
  responseModel: "gen_ai.response.model",
  finishReasons: "gen_ai.response.finish_reasons",
  inputTokens: "gen_ai.usage.input_tokens",
  outputTokens: "gen_ai.usage.output_tokens",
  toolName: "gen_ai.tool.name",
  toolCall: "gen_ai.tool.call.id",
  errorType: "error.type",
  turn: "parley.turn_id",
} as const;

/** The agent's work in a turn. */
export interface AgentWork {
  /** The agent's name. */
  readonly agent: string;
  /** The model that it is configured with. */
  readonly model: string;
  /** Who serves the model, as the conventions name providers: `openai`. */
  readonly provider: string;
  readonly sessionId: string;
  readonly turnId: string;
}

/** Runs an agent's work in a span `invoke_agent <agent>`; the model calls within become its children. */
export function inAgentSpan<Result>(work: AgentWork, run: () => Promise<Result>): Promise<Result> {
  if (isUnsampled()) return run();
  const { agent, model, provider, sessionId, turnId } = work;
  const attributes: Attributes = {
    [SPAN_ATTRIBUTES.operation]: "invoke_agent",
    [SPAN_ATTRIBUTES.provider]: provider,
    [SPAN_ATTRIBUTES.agent]: agent,
    [SPAN_ATTRIBUTES.requestModel]: model,
    [SPAN_ATTRIBUTES.conversation]: sessionId,
    [SPAN_ATTRIBUTES.turn]: turnId,
  };
  const span = tracer().startSpan(`invoke_agent ${agent}`, { kind: SpanKind.INTERNAL, attributes });
  const within = trace.setSpan(context.active(), span).setValue(AGENT_WORK, work);
  return context.with(within, () => ended(span, run));
}

/**
 * A model whose calls each have a span `chat <model>`. Belongs innermost, around one provider, so that each attempt of a
 * fallback is a span of its own.
 */
export function withChatSpans(model: Model, { provider }: { readonly provider: string }): Model {
  return {
    call(request, observer) {
      if (isUnsampled()) return model.call(request, observer);
      const span = tracer().startSpan(`chat ${request.model}`, {
        kind: SpanKind.CLIENT,
        attributes: requestAttributes(request, provider),
      });
      return context.with(trace.setSpan(context.active(), span), () =>
        ended(span, async () => {
          try {
            const reply = await model.call(request, observer);
            span.setAttribute(SPAN_ATTRIBUTES.responseModel, reply.model);
            span.setAttribute(SPAN_ATTRIBUTES.finishReasons, [reply.ended]);
            setUsage(span, reply.usage);
            return reply;
          } catch (error) {
            if (error instanceof ModelCallFailure) setUsage(span, error.usage);
            throw error;
          }
        }),
      );
    },
  };
}

/** A tool whose calls each have a span `execute_tool <tool>`. */
export function withToolSpans(tool: Tool): Tool {
  return withCall(tool, (argumentsJson, call) => {
    if (isUnsampled()) return tool.call(argumentsJson, call);
    const span = tracer().startSpan(`execute_tool ${tool.name}`, {
      kind: SpanKind.INTERNAL,
      attributes: {
        [SPAN_ATTRIBUTES.operation]: "execute_tool",
        [SPAN_ATTRIBUTES.toolName]: tool.name,
        [SPAN_ATTRIBUTES.toolCall]: call.id,
        ...workAttributes(),
      },
    });
    return context.with(trace.setSpan(context.active(), span), () => ended(span, () => tool.call(argumentsJson, call)));
  });
}

/** Whether the code runs in a trace that is not sampled: its spans would be made, labelled and carried along for nothing. */
function isUnsampled(): boolean {
  const span = trace.getActiveSpan();
  return span !== undefined && (span.spanContext().traceFlags & TraceFlags.SAMPLED) === 0;
}

/** Tells the model calls of an agent's work whose they are. */
const AGENT_WORK = createContextKey("parley agent work");

function requestAttributes(request: ModelRequest, provider: string): Attributes {
  return {
    [SPAN_ATTRIBUTES.operation]: "chat",
    [SPAN_ATTRIBUTES.provider]: provider,
    [SPAN_ATTRIBUTES.requestModel]: request.model,
    [SPAN_ATTRIBUTES.temperature]: request.temperature,
    [SPAN_ATTRIBUTES.maxTokens]: request.maxOutputTokens,
    ...workAttributes(),
  };
}

/** Whose work a span within it is part of. */
function workAttributes(): Attributes {
  const work = context.active().getValue(AGENT_WORK) as AgentWork | undefined;
  if (work === undefined) return {};
  return {
    [SPAN_ATTRIBUTES.agent]: work.agent,
    [SPAN_ATTRIBUTES.conversation]: work.sessionId,
    [SPAN_ATTRIBUTES.turn]: work.turnId,
  };
}

function setUsage(span: Span, usage: CallUsage): void {
  span.setAttribute(SPAN_ATTRIBUTES.inputTokens, usage.promptTokens);
  span.setAttribute(SPAN_ATTRIBUTES.outputTokens, usage.completionTokens);
}

/** Runs the work and ends its span. Of an error only the reason or the type is kept: its message may quote content. */
async function ended<Result>(span: Span, run: () => Promise<Result>): Promise<Result> {
  try {
    return await run();
  } catch (error) {
    span.setAttribute(SPAN_ATTRIBUTES.errorType, errorType(error));
    span.setStatus({ code: SpanStatusCode.ERROR });
    throw error;
  } finally {
    span.end();
  }
}

function errorType(error: unknown): string {
  if (error instanceof Failure) return error.reason;
  return error instanceof Error ? error.name : "_OTHER";
}

/** Looked up each time: tracing may start after this file is read. */
function tracer() {
  return trace.getTracer("parley");
}
