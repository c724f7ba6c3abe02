import { expect, test } from "vitest";
import { UsageSource } from "../../gen/parley/chat/v1/token_usage_pb.js";
import { type CallUsage, type Model, ModelCallFailure, type ModelRequest } from "../../src/engine/model.ts";
import { Failure, type FailureReason } from "../../src/failure.ts";
import { withAttempts } from "../../src/providers/attempt-provider.ts";
import { withFallback } from "../../src/providers/fallback-provider.ts";
import { outcomeOf, REQUEST } from "./provider-calls.ts";

test.each([
  ["the first one answers", [{}, {}], ["a"], "a"],
  ["the first is unavailable", [{ failure: "MODEL_UNAVAILABLE" }, {}], ["a", "b"], "b"],
  ["the first limits the rate", [{ failure: "MODEL_RATE_LIMITED" }, {}], ["a", "b"], "b"],
  ["the first cannot be reached", [{ failure: "MODEL_UNAVAILABLE", neverSent: true }, {}], ["a", "b"], "b"],
  [
    "only the last answers",
    [{ failure: "MODEL_UNAVAILABLE" }, { failure: "MODEL_RATE_LIMITED" }, {}, {}],
    ["a", "b", "c"],
    "c",
  ],
] as [string, Behaviour[], string[], string][])("when %s", async (_, behaviours, asked, answered) => {
  const chain = chainOf(behaviours);
  const { reply, pieces } = await outcomeOf(chain.model);
  expect(chain.asked).toEqual(asked);
  expect(reply?.model).toBe(answered);
  expect(pieces).toEqual([`I am ${answered}`]);
});

test("a reply that has begun is never begun again by another model", async () => {
  const chain = chainOf([{ failure: "MODEL_UNAVAILABLE", says: "Half a sen" }, {}]);
  const { failure, pieces } = await outcomeOf(chain.model);
  expect(chain.asked).toEqual(["a"]);
  expect(failure?.reason).toBe("MODEL_UNAVAILABLE");
  expect(pieces).toEqual(["Half a sen"]);
});

test.each(["MODEL_REFUSED", "INTERNAL"] as const)("%s is not for another model to mend", async (failure) => {
  const chain = chainOf([{ failure }, {}]);
  expect((await outcomeOf(chain.model)).failure?.reason).toBe(failure);
  expect(chain.asked).toEqual(["a"]);
});

test("a call that is cancelled is not made again, whatever its failure says", async () => {
  const stop = new AbortController();
  const chain = chainOf([{ failure: "MODEL_UNAVAILABLE", before: () => stop.abort() }, {}]);
  const { failure } = await outcomeOf(chain.model, {}, { signal: stop.signal });
  expect(failure?.reason).toBe("MODEL_UNAVAILABLE");
  expect(chain.asked).toEqual(["a"]);
});

test.each([
  ["the last one's failure", ["MODEL_UNAVAILABLE", "MODEL_RATE_LIMITED"], "MODEL_RATE_LIMITED"],
  ["the last one's failure", ["MODEL_RATE_LIMITED", "MODEL_UNAVAILABLE"], "MODEL_UNAVAILABLE"],
  ["the one that passes by itself", ["MODEL_UNAVAILABLE", "MODEL_REFUSED"], "MODEL_UNAVAILABLE"],
  ["the one that passes by itself", ["MODEL_RATE_LIMITED", "MODEL_REFUSED"], "MODEL_RATE_LIMITED"],
] as [string, FailureReason[], FailureReason][])("when all fail, %s is thrown: %j", async (_, failures, thrown) => {
  const chain = chainOf(failures.map((failure) => ({ failure })));
  expect((await outcomeOf(chain.model)).failure?.reason).toBe(thrown);
  expect(chain.asked).toEqual(["a", "b"]);
});

test("each attempt that was made is told, with its own model and usage, and none that was not", async () => {
  const chain = chainOf([
    { failure: "MODEL_UNAVAILABLE", usage: used(100, 7) },
    { failure: "MODEL_UNAVAILABLE", neverSent: true },
    { failure: "MODEL_RATE_LIMITED", usage: used(0, 0) },
    { usage: { promptTokens: 90, completionTokens: 5, source: UsageSource.PROVIDER } },
  ]);
  const { attempts } = await outcomeOf(chain.model);
  expect(attempts).toEqual([
    { model: "a", outcome: "failed", usage: used(100, 7) },
    { model: "c", outcome: "failed", usage: used(0, 0) },
    { model: "d", outcome: "ok", usage: { promptTokens: 90, completionTokens: 5, source: UsageSource.PROVIDER } },
  ]);
});

test("the last attempt is told too when it fails or is cancelled", async () => {
  const failing = await outcomeOf(chainOf([{ failure: "MODEL_UNAVAILABLE" }, { failure: "MODEL_REFUSED" }]).model);
  expect(failing.attempts.map(({ model, outcome }) => [model, outcome])).toEqual([
    ["a", "failed"],
    ["b", "failed"],
  ]);
  const stopped = await outcomeOf(chainOf([{ failure: "CALL_CANCELLED" }]).model);
  expect(stopped.attempts.map(({ outcome }) => outcome)).toEqual(["cancelled"]);
});

test("all attempts together stay within the call's tokens", async () => {
  const chain = chainOf([
    { failure: "MODEL_UNAVAILABLE", usage: used(400, 50) },
    { failure: "MODEL_RATE_LIMITED", usage: used(0, 0) },
    {},
  ]);
  await outcomeOf(chain.model, { maxTotalTokens: 1_000, maxOutputTokens: 600 });
  expect(chain.requests.map(({ maxTotalTokens, maxOutputTokens }) => [maxTotalTokens, maxOutputTokens])).toEqual([
    [1_000, 600],
    [550, 150],
    [550, 150],
  ]);
});

test("tokens that are plenty leave the answer's bound as it is", async () => {
  const chain = chainOf([{ failure: "MODEL_UNAVAILABLE", usage: used(400, 50) }, {}]);
  await outcomeOf(chain.model, { maxTotalTokens: 100_000, maxOutputTokens: 600 });
  expect(chain.requests[1]).toEqual({ ...REQUEST, maxTotalTokens: 99_550, maxOutputTokens: 600 });
});

test("without tokens left for an answer no further attempt is made", async () => {
  const chain = chainOf([{ failure: "MODEL_UNAVAILABLE", usage: used(500, 0) }, {}]);
  const { failure } = await outcomeOf(chain.model, { maxTotalTokens: 1_000, maxOutputTokens: 500 });
  expect(failure?.reason).toBe("MODEL_UNAVAILABLE");
  expect(chain.asked).toEqual(["a"]);
});

interface Behaviour {
  readonly failure?: FailureReason;
  /** Said before the failure. */
  readonly says?: string;
  readonly usage?: CallUsage;
  /** The failure is of a call that was not made. */
  readonly neverSent?: boolean;
  readonly before?: () => void;
}

/** Models a, b, c … in order, each behind what tells of its attempts. */
function chainOf(behaviours: readonly Behaviour[]) {
  const asked: string[] = [];
  const requests: ModelRequest[] = [];
  const models = behaviours.map(({ failure, says, usage = used(10, 0), neverSent = false, before }, index): Model => {
    const name = String.fromCharCode("a".charCodeAt(0) + index);
    return withAttempts(
      {
        async call(request, { onText }) {
          asked.push(name);
          requests.push(request);
          before?.();
          if (failure !== undefined) {
            if (says !== undefined) onText(says);
            throw neverSent ? new Failure(failure) : new ModelCallFailure(failure, { model: name, usage });
          }
          onText(`I am ${name}`);
          return { model: name, text: `I am ${name}`, toolCalls: [], ended: "stop", usage };
        },
      },
      name,
    );
  });
  return { model: withFallback(models as [Model, ...Model[]]), asked, requests };
}

function used(promptTokens: number, completionTokens: number): CallUsage {
  return { promptTokens, completionTokens, source: UsageSource.TOKENIZER_ESTIMATE };
}
