import type { Manifest } from "../support/helm.ts";

/** What a render is of: its objects and the values that it was made from, defaults included. */
export interface Rendered {
  readonly objects: readonly Manifest[];
  readonly values: Manifest;
}

/** Something that holds for every render, whatever the values are. */
export interface Invariant {
  readonly name: string;
  /** What is wrong; empty: nothing. */
  check(rendered: Rendered): string[];
}

// What invariants read of a render.

export function ofKind(objects: readonly Manifest[], kind: string): Manifest[] {
  return objects.filter((object) => object.kind === kind);
}

export function workloads(objects: readonly Manifest[]): Manifest[] {
  return ofKind(objects, "Deployment");
}

export function pods(objects: readonly Manifest[]): Manifest[] {
  return workloads(objects).map(({ metadata, spec: { template } }) => ({
    name: metadata.name,
    track: metadata.labels.track,
    labels: template.metadata.labels,
    spec: template.spec,
  }));
}

/** Pods that are none of the service's: those of `helm test` and of hooks. */
export function otherPods(objects: readonly Manifest[]): Manifest[] {
  return [
    ...ofKind(objects, "Pod").map(({ metadata, spec }) => ({ name: metadata.name, labels: metadata.labels, spec })),
    ...ofKind(objects, "Job").map(({ metadata, spec: { template } }) => ({
      name: metadata.name,
      labels: template.metadata.labels,
      spec: template.spec,
    })),
  ];
}

export function containers(spec: Manifest): Manifest[] {
  return [...(spec.initContainers ?? []), ...spec.containers];
}

export function env(container: Manifest, name: string): Manifest {
  return container?.env?.find((one: Manifest) => one.name === name);
}

export function shadows(values: Manifest, track: string): boolean {
  return track === "canary" && values.canary.shadow.safe;
}

export function route(objects: readonly Manifest[], name: string): Manifest[] {
  return ofKind(objects, "VirtualService").flatMap(({ spec }) =>
    spec.http.filter((one: Manifest) => one.name === name),
  );
}

export function subsets(to: Manifest[]): string[] {
  return to.map((one) => one.destination.subset);
}

/** Whether a path is one that a route's match takes, as Istio reads it; other conditions count as met, ports as not. */
export function matches(match: Manifest[] | undefined): (path: string) => boolean {
  return (path) =>
    match === undefined ||
    match.some(({ uri, port }) => {
      if (port !== undefined) return false;
      if (uri === undefined) return true;
      if (uri.prefix !== undefined) return path.startsWith(uri.prefix);
      if (uri.exact !== undefined) return path === uri.exact;
      return new RegExp(`^(?:${uri.regex})$`).test(path);
    });
}

export function same(what: string, is: unknown, wanted: unknown): string[] {
  const [left, right] = [is, wanted].map((value) => JSON.stringify(sorted(value)));
  return left === right ? [] : [`${what}: ${left}, not ${right}`];
}

export function holds(what: string, is: Manifest, wanted: unknown): string[] {
  return Object.entries(wanted as object).flatMap(([key, value]) => same(`${what}: ${key}`, is?.[key], value));
}

function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .toSorted(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, inner]) => [key, sorted(inner)]),
  );
}
