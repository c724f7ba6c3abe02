import type { MessageInitShape } from "@bufbuild/protobuf";
import type { ConnectRouter, ServiceImpl } from "@connectrpc/connect";
import {
  Health,
  type HealthCheckResponseSchema,
  HealthCheckResponse_ServingStatus as ServingStatus,
} from "../../gen/grpc/health/v1/health_pb.js";
import { Failure } from "../failure.ts";

/** Which services serve. `""` is the process as a whole. */
export interface HealthState {
  /** Tells all watchers, if it is news. */
  set(service: string, serving: boolean): void;
  /** {@link set} for all services and the process. */
  setAll(serving: boolean): void;
  /** Undefined: there is no such service. */
  get(service: string): boolean | undefined;
  /** All services; `""` among them. */
  services(): string[];
  /** Calls `onChange` after each change of any service; returns how to stop. */
  watch(onChange: () => void): () => void;
  /** The process goes away: nothing serves, and watchers are told to ask another. */
  end(): void;
  readonly ended: boolean;
}

/** All services begin as not serving: nothing is ready before somebody says so. */
export function createHealthState(services: readonly string[]): HealthState {
  const serving = new Map<string, boolean>(["", ...services].map((service) => [service, false]));
  const watchers = new Set<() => void>();
  let ended = false;
  const change = (names: Iterable<string>, now: boolean): void => {
    for (const name of names) serving.set(name, now && !ended);
    for (const onChange of [...watchers]) onChange();
  };
  return {
    set: (service, now) => change([service], now),
    setAll: (now) => change(serving.keys(), now),
    get: (service) => serving.get(service),
    services: () => [...serving.keys()],
    watch(onChange) {
      watchers.add(onChange);
      return () => watchers.delete(onChange);
    },
    end() {
      ended = true;
      change(serving.keys(), false);
    },
    get ended() {
      return ended;
    },
  };
}

/** Serves `grpc.health.v1`. */
export function registerHealth(router: ConnectRouter, state: HealthState): void {
  router.service(Health, createHealthHandlers(state));
}

/**
 * `grpc.health.v1`: Check answers NOT_FOUND for an unknown service, Watch SERVICE_UNKNOWN, and tells when that changes
 * (https://github.com/grpc/grpc/blob/master/doc/health-checking.md).
 */
function createHealthHandlers(state: HealthState): ServiceImpl<typeof Health> {
  return {
    check({ service }) {
      const serving = state.get(service);
      if (serving === undefined) throw new Failure("UNKNOWN_SERVICE");
      return { status: statusOf(serving) };
    },

    list() {
      const all = state.services().map((service) => [service, { status: statusOf(state.get(service)) }]);
      return { statuses: Object.fromEntries(all) };
    },

    async *watch({ service }, { signal }): AsyncGenerator<MessageInitShape<typeof HealthCheckResponseSchema>> {
      let told: ServingStatus | undefined;
      let wake = (): void => undefined;
      const unwatch = state.watch(() => wake());
      const onAbort = (): void => wake();
      signal.addEventListener("abort", onAbort);
      try {
        while (!signal.aborted) {
          const status = statusOf(state.get(service));
          if (status !== told) {
            told = status;
            yield { status };
            continue;
          }
          if (state.ended) throw new Failure("DRAINING");
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
        }
        throw signal.reason;
      } finally {
        unwatch();
        signal.removeEventListener("abort", onAbort);
      }
    },
  };
}

function statusOf(serving: boolean | undefined): ServingStatus {
  if (serving === undefined) return ServingStatus.SERVICE_UNKNOWN;
  return serving ? ServingStatus.SERVING : ServingStatus.NOT_SERVING;
}
