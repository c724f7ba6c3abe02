import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { Health, HealthCheckResponse_ServingStatus } from "../../gen/grpc/health/v1/health_pb.js";
import type { Manifest } from "./kube-api.ts";

/** Asks once, as the kubelet does: by HTTP or by gRPC health. Never rejects. */
async function probe(spec: Manifest, { ip, ports }: { ip: string; ports: Manifest[] }): Promise<boolean> {
  const timeoutMs = (spec.timeoutSeconds ?? 1) * 1_000;
  try {
    if (spec.httpGet !== undefined) {
      const { path, port } = spec.httpGet;
      const number = typeof port === "number" ? port : ports.find(({ name }) => name === port)?.containerPort;
      const response = await fetch(`http://${ip}:${number}${path}`, { signal: AbortSignal.timeout(timeoutMs) });
      await response.arrayBuffer();
      return response.ok;
    }
    const transport = createGrpcTransport({ baseUrl: `http://${ip}:${spec.grpc.port}`, idleConnectionTimeoutMs: 1 });
    const { status } = await createClient(Health, transport).check({ service: spec.grpc.service ?? "" }, { timeoutMs });
    return status === HealthCheckResponse_ServingStatus.SERVING;
  } catch {
    return false;
  }
}

export interface ProbeLoop {
  /** What the probe says after its thresholds; undefined: nothing yet. */
  readonly healthy: boolean | undefined;
  stop(): void;
}

/**
 * Repeats a probe by its own periods and thresholds. A startup probe's first success is enough, and it stops by itself then.
 */
export function startProbe(
  spec: Manifest,
  target: { ip: string; ports: Manifest[] },
  onChange: (healthy: boolean) => void,
): ProbeLoop {
  let healthy: boolean | undefined;
  let inARow = 0;
  let last: boolean | undefined;
  let stopped = false;
  const timer = { current: undefined as ReturnType<typeof setTimeout> | undefined };
  const look = async (): Promise<void> => {
    const startedMs = Date.now();
    const answer = await probe(spec, target);
    if (stopped) return;
    inARow = answer === last ? inARow + 1 : 1;
    last = answer;
    const needed = answer ? (spec.successThreshold ?? 1) : (spec.failureThreshold ?? 3);
    if (inARow >= needed && healthy !== answer) {
      healthy = answer;
      onChange(answer);
    }
    const waitMs = Math.max(0, (spec.periodSeconds ?? 10) * 1_000 - (Date.now() - startedMs));
    if (!stopped) timer.current = setTimeout(look, waitMs);
  };
  void look();
  return {
    get healthy() {
      return healthy;
    },
    stop() {
      stopped = true;
      clearTimeout(timer.current);
    },
  };
}
