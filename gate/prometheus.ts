import * as z from "zod";
import { GateFileError } from "./conditions.ts";

/**
 * Asks for one number. Undefined: there is no sample, or it is no number. GateFileError: what the file made of it is no
 * expression, or takes in several namespaces.
 */
export type Query = (expression: string) => Promise<number | undefined>;

/** Prometheus did not answer, or not with what was asked. */
export class PrometheusError extends Error {
  override readonly name = "PrometheusError";
}

const answer = z.object({
  status: z.string(),
  errorType: z.string().optional(),
  error: z.string().optional(),
  data: z
    .object({ resultType: z.string(), result: z.array(z.object({ value: z.tuple([z.number(), z.string()]) })) })
    .optional(),
});

/**
 * Instant queries by Prometheus' HTTP API (https://prometheus.io/docs/prometheus/latest/querying/api/).
 *
 * @param url Prometheus' URL, with its path prefix if it has one.
 * @param token Sent as bearer token, where given.
 * @param timeoutMs A query that takes longer is given up. Default 30,000.
 */
export function prometheus({
  url,
  token,
  timeoutMs = 30_000,
}: {
  readonly url: string;
  readonly token?: string | undefined;
  readonly timeoutMs?: number;
}): Query {
  const endpoint = `${url.replace(/\/$/, "")}/api/v1/query`;
  return async (query) => {
    let body: unknown;
    try {
      const response = await fetch(endpoint, {
        method: "POST",
        headers: {
          "content-type": "application/x-www-form-urlencoded",
          ...(token !== undefined && { authorization: `Bearer ${token}` }),
        },
        body: new URLSearchParams({ query }),
        signal: AbortSignal.timeout(timeoutMs),
      });
      if (!response.headers.get("content-type")?.includes("json"))
        throw new PrometheusError(`${endpoint} answers HTTP ${response.status}, which is no answer of Prometheus`);
      body = await response.json();
    } catch (error) {
      if (error instanceof PrometheusError) throw error;
      throw new PrometheusError(`${endpoint} does not answer`, { cause: error });
    }
    const parsed = answer.safeParse(body);
    if (!parsed.success) throw new PrometheusError(`${endpoint} answers with something else`);
    const { status, errorType, error, data } = parsed.data;
    if (errorType === "bad_data") throw new GateFileError(`Prometheus cannot read ${query}: ${error}`);
    if (status !== "success" || data === undefined) throw new PrometheusError(`${endpoint}: ${error ?? status}`);
    if (data.result.length > 1)
      throw new GateFileError(`selector: it takes in ${data.result.length} namespaces; name one of them`);
    const value = Number(data.result[0]?.value[1]);
    return Number.isFinite(value) ? value : undefined;
  };
}
