import { spawn } from "node:child_process";
import { join } from "node:path";
import { createInterface } from "node:readline";
import OpenAI from "openai";
import type { ChatCompletionCreateParams } from "openai/resources/chat/completions";
import { openAiPythonPath } from "../support/openai-python.ts";

/** A call of the official clients. */
export interface OpenAiCall {
  /** Of the service; the API is below it. */
  readonly url: string;
  readonly apiKey?: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** How often the client tries again by itself. Default: never. */
  readonly maxRetries?: number;
  /** Null: list the models. */
  readonly request: ChatCompletionCreateParams | null;
}

/** What came of it. */
export interface OpenAiAnswer {
  readonly id?: string;
  readonly model?: string;
  readonly content: string;
  /** Chunks with a choice, of a stream. */
  readonly chunks: number;
  readonly finishReason: string | null;
  readonly usage: { prompt_tokens: number; completion_tokens: number; total_tokens: number } | null;
  readonly headers: Readonly<Record<string, string>>;
  readonly models: readonly string[];
  /** What the client threw: its class, the status, and the fields of the error. */
  readonly error: {
    readonly name: string;
    readonly status: number | null;
    readonly message?: string;
    readonly type?: string;
    readonly param?: string | null;
    readonly code?: string | null;
  } | null;
}

/** The official clients: npm's and PyPI's. */
export const officialClients: readonly (readonly [string, (call: OpenAiCall) => Promise<OpenAiAnswer>])[] = [
  ["npm's openai", callByNpm],
  ["PyPI's openai", callByPython],
];

async function callByNpm({ url, apiKey = "none", headers = {}, maxRetries = 0, request }: OpenAiCall) {
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries, defaultHeaders: headers, timeout: 60_000 });
  const answer: { -readonly [Name in keyof OpenAiAnswer]: OpenAiAnswer[Name] } = { ...NOTHING };
  try {
    if (request === null) {
      for await (const { id } of client.models.list()) answer.models = [...answer.models, id];
      return answer;
    }
    if (request.stream) {
      const { data, response } = await client.chat.completions.create(request).withResponse();
      answer.headers = Object.fromEntries(response.headers);
      for await (const chunk of data) {
        Object.assign(answer, { id: chunk.id, model: chunk.model, usage: chunk.usage ?? answer.usage });
        for (const { delta, finish_reason } of chunk.choices) {
          answer.chunks++;
          answer.content += delta.content ?? "";
          answer.finishReason = finish_reason ?? answer.finishReason;
        }
      }
      return answer;
    }
    const { data, response } = await client.chat.completions.create({ ...request, stream: false }).withResponse();
    const [choice] = data.choices;
    return {
      ...answer,
      id: data.id,
      model: data.model,
      content: choice?.message.content ?? "",
      finishReason: choice?.finish_reason ?? null,
      usage: data.usage ?? null,
      headers: Object.fromEntries(response.headers),
    };
  } catch (thrown) {
    if (!(thrown instanceof OpenAI.APIError)) throw thrown;
    return {
      ...answer,
      headers: Object.fromEntries(thrown.headers ?? []),
      error: { ...(thrown.error as object), name: thrown.constructor.name, status: thrown.status ?? null },
    };
  }
}

const NOTHING: OpenAiAnswer = {
  content: "",
  chunks: 0,
  finishReason: null,
  usage: null,
  headers: {},
  models: [],
  error: null,
};

async function callByPython({ url, apiKey = "none", headers = {}, maxRetries = 0, request }: OpenAiCall) {
  const asked = { baseUrl: `${url}/v1`, apiKey, headers, maxRetries, request };
  python ??= startPython();
  const { send } = await python;
  return send(asked);
}

/** One process per file of tests: to import the package takes as long as many calls. It ends when its stdin does, with us. */
let python: Promise<{ send(asked: object): Promise<OpenAiAnswer> }> | undefined;

async function startPython() {
  const env = { ...process.env, PYTHONPATH: await openAiPythonPath() };
  const script = join(import.meta.dirname, "openai_client.py");
  const child = spawn("python3", [script], { env, stdio: ["pipe", "pipe", "inherit"] });
  const waiting = new Map<number, PromiseWithResolvers<OpenAiAnswer>>();
  createInterface(child.stdout).on("line", (line) => {
    const told = JSON.parse(line) as { call: number; answer?: OpenAiAnswer; defect?: string };
    const call = waiting.get(told.call);
    waiting.delete(told.call);
    if (told.answer === undefined) call?.reject(new Error(told.defect));
    else call?.resolve(told.answer);
  });
  child.once("exit", (code) => {
    for (const call of waiting.values()) call.reject(new Error(`python3 ended with ${code}`));
  });
  let calls = 0;
  return {
    send(asked: object): Promise<OpenAiAnswer> {
      const call = Promise.withResolvers<OpenAiAnswer>();
      waiting.set(++calls, call);
      child.stdin.write(`${JSON.stringify({ call: calls, ...asked })}\n`);
      return call.promise;
    },
  };
}
