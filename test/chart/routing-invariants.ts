import type { Manifest } from "../support/helm.ts";
import { type Invariant, matches, ofKind, pods, route, same, subsets } from "./manifests.ts";

const HOST = "parley.chat.svc.cluster.local";
/** RPCs that start turns, or may not be sent twice for another reason. */
const TURN_PATHS = ["Chat", "StreamChat", "PreviewChat", "CancelTurn"].map(
  (rpc) => `/parley.chat.v1.ChatService/${rpc}`,
);

/** What holds for routes and subsets. */
export const ROUTING_INVARIANTS: readonly Invariant[] = [
  {
    name: "weights and canary pods are rendered only when the owner is Helm",
    check({ objects, values }) {
      const routing = [...ofKind(objects, "VirtualService"), ...ofKind(objects, "DestinationRule")];
      const canaries = ofKind(objects, "Deployment").filter(({ metadata }) => metadata.labels.track === "canary");
      const foreign = values.canary.enabled && values.canary.owner !== "helm";
      return [
        ...same("routing objects", routing.length, values.istio.enabled && !foreign ? 2 : 0),
        ...same("canary Deployments", canaries.length, values.canary.enabled && !foreign ? 1 : 0),
      ];
    },
  },
  {
    name: "routes are named and in order: preview, usage, ops, affinity, reads, turns",
    check({ objects, values }) {
      const { canary, sidecar, traffic, istio } = values;
      const preview = canary.enabled && canary.preview.enabled && !canary.shadow.safe;
      const serves = canary.enabled && !canary.shadow.safe && (preview || canary.weight > 0);
      const wanted = [
        ...(preview ? ["preview"] : []),
        ...(sidecar.enabled ? ["usage"] : []),
        ...(istio.gateways.includes("mesh") ? ["ops"] : []),
        ...(serves && traffic.affinity.enabled ? ["affinity-canary", "affinity-stable"] : []),
        ...(traffic.retries.attempts > 0 ? ["reads"] : []),
        "turns",
      ];
      return ofKind(objects, "VirtualService").flatMap(({ spec }) => [
        ...same(
          "routes",
          spec.http.map((route: Manifest) => route.name),
          wanted,
        ),
        ...same("matches of the last route", spec.http.at(-1).match, undefined),
      ]);
    },
  },
  {
    name: "the preview route sends by its header to the canary alone",
    check: ({ objects, values }) =>
      route(objects, "preview").flatMap(({ match, route: to }) => [
        ...match.flatMap((one: Manifest) =>
          same("preview header", one.headers, {
            [values.canary.preview.header]: { exact: values.canary.preview.value },
          }),
        ),
        ...same(
          "paths of the preview",
          ["/parley.chat.v1.ChatService/StreamChat", "/", "/assets/x.js"].filter(matches(match)).length,
          3,
        ),
        ...same("usage in the preview", ["/parley.usage.v1.UsageService/QueryUsage"].filter(matches(match)), []),
        ...same("preview goes to", subsets(to), ["canary"]),
      ]),
  },
  {
    name: "usage goes to the sidecar of stable",
    check: ({ objects }) =>
      route(objects, "usage").flatMap(({ match, route: to }) => [
        ...same("usage prefix", match[0].uri?.prefix, "/parley.usage.v1."),
        ...same(
          "usage goes to",
          to.map((one: Manifest) => [one.destination.subset, one.destination.port.number]),
          [["stable", 8081]],
        ),
      ]),
  },
  {
    name: "a session goes back to the version that began it",
    check: ({ objects, values }) =>
      ["stable", "canary"].flatMap((track) =>
        route(objects, `affinity-${track}`).flatMap(({ match, route: to }) => {
          const version = pods(objects).find((pod) => pod.track === track)?.labels["app.kubernetes.io/version"];
          const { header, cookie } = values.traffic.affinity;
          const regex = new RegExp(`^(?:${match[1]?.headers.cookie.regex})$`);
          const taken = [`${cookie}=${version}`, `a=b; ${cookie}=${version}; c=d`].filter((text) => regex.test(text));
          const refused = [`${cookie}=${version}0`, `x${cookie}=${version}`, `${cookie}=0`].filter((text) =>
            regex.test(text),
          );
          return [
            ...same(`header of ${track}`, match[0].headers, { [header]: { exact: version } }),
            ...same(`cookies of ${track}`, [taken.length, refused], [2, []]),
            ...same(`${track} sessions go to`, subsets(to), [track]),
          ];
        }),
      ),
  },
  {
    name: "nothing that starts a turn is sent again",
    check: ({ objects }) =>
      ofKind(objects, "VirtualService").flatMap(({ spec }) =>
        spec.http.flatMap((one: Manifest) => {
          const paths = TURN_PATHS.filter(matches(one.match));
          const attempts = one.retries?.attempts;
          if (paths.length > 0) return same(`retries of ${one.name}`, one.retries, { attempts: 0 });
          if (attempts === 0) return [];
          return same(
            `retries of ${one.name}`,
            /^(connect-failure|refused-stream|,)+$/.test(one.retries?.retryOn),
            true,
          );
        }),
      ),
  },
  {
    name: "no route has a timeout",
    check: ({ objects }) =>
      ofKind(objects, "VirtualService").flatMap(({ spec }) =>
        spec.http.filter((one: Manifest) => "timeout" in one).map((one: Manifest) => `${one.name} ends turns`),
      ),
  },
  {
    name: "weights are the values' and make a hundred, for turns and reads alike",
    check: ({ objects, values }) =>
      ["turns", "reads"].flatMap((name) =>
        route(objects, name).flatMap(({ route: to }) => {
          if (!values.canary.enabled) return same(`${name} go to`, subsets(to), ["stable"]);
          const weights = Object.fromEntries(to.map((one: Manifest) => [one.destination.subset, one.weight]));
          const { weight } = values.canary;
          return same(`weights of ${name}`, weights, { stable: 100 - weight, canary: weight });
        }),
      ),
  },
  {
    name: "copies go to shadows, marked, of turns that stable answers",
    check: ({ objects, values }) => {
      const { percent } = values.canary.mirror;
      return ofKind(objects, "VirtualService").flatMap(({ spec }) => {
        const mirrored = spec.http.filter((one: Manifest) => one.mirrors !== undefined || one.mirror !== undefined);
        if (percent === 0) return same("mirrored routes", mirrored.length, 0);
        return [
          ...same(
            "mirrored routes",
            mirrored.map((one: Manifest) => one.name),
            ["turns"],
          ),
          ...same(
            "copies",
            mirrored[0]?.mirrors?.map((one: Manifest) => [one.destination.subset, one.percentage.value]),
            [["canary", percent]],
          ),
          ...same("mark", mirrored[0]?.headers?.request?.set, { "x-parley-mirrored": "true" }),
          ...same("mirror without shadows", values.canary.shadow.safe, true),
        ];
      });
    },
  },
  {
    name: "every destination is a port of the Service and a subset of the rule",
    check({ objects }) {
      const known = new Set(ofKind(objects, "Service")[0]?.spec.ports.map((one: Manifest) => one.port));
      const rule = ofKind(objects, "DestinationRule")[0]?.spec;
      const names = new Set(rule?.subsets.map((one: Manifest) => one.name));
      return ofKind(objects, "VirtualService").flatMap(({ spec }) => [
        ...same("the rule's host", rule?.host, HOST),
        ...(spec.hosts.includes(HOST) ? [] : ["the Service's name is no host of the routes"]),
        ...spec.http.flatMap((one: Manifest) =>
          [...one.route, ...(one.mirrors ?? [])].flatMap(({ destination }: Manifest) => [
            ...same(`host of ${one.name}`, destination.host, HOST),
            ...(known.has(destination.port.number) ? [] : [`${one.name}: no port ${destination.port.number}`]),
            ...(names.has(destination.subset) ? [] : [`${one.name}: no subset ${destination.subset}`]),
          ]),
        ),
      ]);
    },
  },
  {
    name: "subsets are the tracks",
    check: ({ objects, values }) =>
      ofKind(objects, "DestinationRule").flatMap(({ spec }) =>
        same("subsets", spec.subsets, [
          { name: "stable", labels: { track: "stable" } },
          ...(values.canary.enabled ? [{ name: "canary", labels: { track: "canary" } }] : []),
        ]),
      ),
  },
  {
    name: "outlier detection ejects late and never all",
    check: ({ objects, values }) =>
      ofKind(objects, "DestinationRule").flatMap(({ spec: { trafficPolicy } }) => {
        const detection = trafficPolicy.outlierDetection;
        if (!values.traffic.outlierDetection.enabled) return same("outlier detection", detection, undefined);
        return [
          ...(detection?.consecutive5xxErrors >= 10 ? [] : ["one client's mistakes eject a pod"]),
          ...(detection?.consecutiveGatewayErrors >= 10 ? [] : ["one client's short deadlines eject a pod"]),
          ...(detection?.maxEjectionPercent <= 50 ? [] : ["all pods may be ejected"]),
        ];
      }),
  },
];
