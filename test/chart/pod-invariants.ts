import type { Manifest } from "../support/helm.ts";
import { containers, env, holds, type Invariant, ofKind, otherPods, pods, same, shadows } from "./manifests.ts";

/** What holds for the pods of both tracks. */
export const POD_INVARIANTS: readonly Invariant[] = [
  {
    name: "both tracks are the same pod but for image, version and track",
    check({ objects, values }) {
      const [stable, canary] = ["stable", "canary"].map((track) => pods(objects).find((pod) => pod.track === track));
      if (stable === undefined || canary === undefined || values.canary.shadow.safe) return [];
      const neutral = (pod: Manifest): unknown => {
        const text = JSON.stringify({ labels: pod.labels, spec: pod.spec });
        return text
          .replaceAll(containers(pod.spec)[0].image, "IMAGE")
          .replaceAll(`"${pod.labels["app.kubernetes.io/version"]}"`, '"VERSION"')
          .replaceAll(`"${pod.track}"`, '"TRACK"');
      };
      return same("the canary's pod", neutral(canary), neutral(stable));
    },
  },
  {
    name: "a pod says the version and track that it is labelled with",
    check: ({ objects }) =>
      pods(objects).flatMap(({ name, spec, track, labels }) =>
        containers(spec).flatMap((container: Manifest) => [
          ...same(`${name}/${container.name} TRACK`, env(container, "TRACK")?.value, track),
          ...same(
            `${name}/${container.name} VERSION`,
            env(container, "VERSION")?.value,
            labels["app.kubernetes.io/version"],
          ),
        ]),
      ),
  },
  {
    name: "the sidecar starts before the service and ends after it",
    check: ({ objects, values }) =>
      pods(objects).flatMap(({ name, spec, track }) => {
        const sidecars = (spec.initContainers ?? []).filter((one: Manifest) => one.name === "sidecar");
        if (!values.sidecar.enabled || shadows(values, track)) return same(`${name}: sidecars`, sidecars.length, 0);
        return [
          ...same(`${name}: sidecars`, sidecars.length, 1),
          ...same(`${name}: restartPolicy of the sidecar`, sidecars[0]?.restartPolicy, "Always"),
          ...same(`${name}: command of the sidecar`, sidecars[0]?.command, ["node", "sidecar/main.ts"]),
          ...(sidecars[0]?.startupProbe === undefined ? [`${name}: the service would not wait for the sidecar`] : []),
        ];
      }),
  },
  {
    name: "a pod may take as long to go as its parts need",
    check: ({ objects, values: { drain, sidecar } }) =>
      pods(objects).flatMap(({ name, spec }) => {
        const service = spec.containers[0];
        const needed =
          drain.preStopSeconds +
          drain.maxTurnSeconds +
          drain.closeSeconds +
          (sidecar.enabled ? drain.sidecarFlushSeconds : 0) +
          5;
        const grace = spec.terminationGracePeriodSeconds;
        return [
          ...(grace >= needed ? [] : [`${name}: grace period ${grace}, needed ${needed}`]),
          ...same(`${name}: preStop`, service.lifecycle?.preStop?.sleep?.seconds, drain.preStopSeconds),
          ...same(`${name}: DRAIN_MS`, env(service, "DRAIN_MS")?.value, `${drain.maxTurnSeconds * 1_000}`),
          ...(spec.initContainers ?? []).flatMap((container: Manifest) =>
            same(
              `${name}: SIDECAR_LAST_SCRAPE_MS`,
              env(container, "SIDECAR_LAST_SCRAPE_MS")?.value,
              `${Math.max(0, drain.sidecarFlushSeconds - 5) * 1_000}`,
            ),
          ),
        ];
      }),
  },
  {
    name: "readiness is gRPC health, liveness is not",
    check: ({ objects }) =>
      pods(objects).flatMap(({ name, spec }) => {
        const [service] = spec.containers;
        return [
          ...same(`${name}: readiness`, service.readinessProbe?.grpc, { port: 8080 }),
          ...containers(spec).flatMap((container: Manifest) =>
            same(`${name}/${container.name}: liveness`, container.livenessProbe?.httpGet?.path, "/livez"),
          ),
        ];
      }),
  },
  {
    name: "containers are not root, write no root file system and have no capabilities",
    check: ({ objects }) =>
      [...pods(objects), ...otherPods(objects)].flatMap(({ name, spec }) => [
        ...same(`${name}: token`, spec.automountServiceAccountToken, false),
        ...holds(`${name}: pod`, spec.securityContext, { runAsNonRoot: true, runAsUser: 65532 }),
        ...containers(spec).flatMap((container: Manifest) => [
          ...same(`${name}/${container.name}: security`, container.securityContext, {
            allowPrivilegeEscalation: false,
            readOnlyRootFilesystem: true,
            runAsNonRoot: true,
            capabilities: { drop: ["ALL"] },
          }),
          ...(["requests", "limits"] as const).flatMap((side) =>
            container.resources?.[side]?.memory ? [] : [`${name}/${container.name}: no memory ${side}`],
          ),
        ]),
      ]),
  },
  {
    name: "the sidecar is given no key of a model",
    check: ({ objects }) =>
      pods(objects).flatMap(({ name, spec }) =>
        (spec.initContainers ?? []).flatMap((sidecar: Manifest) =>
          (sidecar.env ?? [])
            .filter((one: Manifest) => one.valueFrom !== undefined && one.name !== "REDIS_URL")
            .map((one: Manifest) => `${name}: ${one.name}`),
        ),
      ),
  },
  {
    name: "secrets come by reference only",
    check({ objects }) {
      const plain = [...pods(objects), ...otherPods(objects)].flatMap(({ spec }) =>
        containers(spec).flatMap((container: Manifest) =>
          (container.env ?? [])
            .filter(
              (one: Manifest) => one.value !== undefined && /KEY$|TOKEN$|PASSWORD|SECRET|\bREDIS_URL$/.test(one.name),
            )
            .filter((one: Manifest) => one.name !== "REDIS_URL" || /\/\/[^/]*:[^/]*@/.test(one.value))
            .map((one: Manifest) => `${container.name}: ${one.name} in plain`),
        ),
      );
      const secrets = ofKind(objects, "Secret").filter(({ metadata }) => !metadata.name.endsWith("-alertmanager"));
      return [...plain, ...secrets.map(({ metadata }) => `a Secret in the chart: ${metadata.name}`)];
    },
  },
  {
    name: "shadows have no Redis, no key, no real model and no sidecar",
    check: ({ objects, values }) =>
      pods(objects)
        .filter(({ track }) => shadows(values, track))
        .flatMap(({ name, spec }) => {
          const [service] = spec.containers;
          const names = (service.env ?? []).map((one: Manifest) => one.name);
          return [
            ...same(`${name}: arguments`, service.args, ["standalone/main.ts"]),
            ...["REDIS_URL", "OPENAI_API_KEY", "OPENAI_BASE_URL", "CONFIG_FILE"]
              .filter((one) => names.includes(one))
              .map((one) => `${name} is given ${one}`),
            ...(service.env ?? [])
              .filter((one: Manifest) => one.valueFrom !== undefined)
              .map((one: Manifest) => `${name} is given ${one.name} by reference`),
          ];
        }),
  },
];
