/** A block of commands of the documentation, and what comes of it in a cluster. */
export interface DocumentedCommands {
  readonly document: string;
  /** How the block begins, once in its document. */
  readonly begins: string;
  /** What a reader puts in place of what is the example's. */
  readonly inPlaceOf?: Readonly<Record<string, string>>;
  /** Commands before it: what the text has done by then, where no other block does it. */
  readonly first?: string;
  /** What it prints, among other things. */
  readonly prints?: RegExp;
}

const VALUES = "-f helm/parley/values-production.yaml -f yours.yaml";

/** In the order in which a release engineer comes to them; `test/mesh/docs.test.ts` runs them so. */
export const DOCUMENTED_COMMANDS: readonly DocumentedCommands[] = [
  {
    document: "docs/operations/install.md",
    begins: "helm template parley",
    prints: /deployment.apps\/parley-stable serverside-applied \(server dry run\)/,
  },
  {
    document: "docs/operations/argo.md",
    begins: "helm template parley",
    prints: /virtualservice.networking.istio.io\/parley serverside-applied/,
  },
  {
    document: "docs/operations/install.md",
    begins: "kubectl create namespace chat",
    // The cluster has the namespace; Argo is not who writes the routes from here on.
    inPlaceOf: {
      "kubectl create namespace chat\n": "",
      "rediss://:PASSWORD@redis.data:6379": "$REDIS_URL",
      "'$REDIS_URL'": '"$REDIS_URL"',
    },
    first:
      "kubectl -n chat delete virtualservice,destinationrule parley; kubectl -n chat delete secret parley-redis parley-model",
    prints: /STATUS: deployed/,
  },
  {
    document: "helm/parley/README.md",
    begins: "helm upgrade --install",
    prints: /STATUS: deployed\n[\s\S]*REVISION: 2/,
  },
  { document: "docs/operations/upgrade.md", begins: "helm upgrade parley", prints: /REVISION: 3/ },
  { document: "docs/operations/canary.md", begins: "C='helm upgrade", prints: /^$/ },
  { document: "docs/operations/canary.md", begins: "$C -f canary.yaml", prints: /REVISION: 4/ },
  {
    document: "docs/operations/canary.md",
    begins: "grpcurl",
    inPlaceOf: { "chat.example.com:80": "chat.example.test:8080" },
    prints: /"track": "canary"/,
  },
  {
    document: "docs/operations/canary.md",
    begins: "kubectl -n chat get virtualservice",
    prints: /^preview canary= *\nusage stable=/,
  },
  {
    document: "docs/operations/canary.md",
    begins: "kubectl -n chat get configmap",
    // One turn is too few to say, which is its exit code.
    inPlaceOf: { "http://localhost:9099": "$PROMETHEUS || [ $? = 2 ]" },
    prints: /UNKNOWN: too few samples/,
  },
  {
    document: "docs/operations/upgrade.md",
    begins: "kubectl -n chat get virtualservice",
    inPlaceOf: { "upgrade …": `upgrade parley helm/parley -n chat --reset-values ${VALUES} --wait` },
    prints: /manager: helm[\s\S]*REVISION: 5/,
  },
  {
    document: "docs/operations/upgrade.md",
    begins: "helm history",
    inPlaceOf: { REVISION: "4" },
    prints: /Rollback was a success/,
  },
  {
    document: "docs/operations/secrets.md",
    begins: "kubectl -n chat create secret",
    prints: /secret\/parley-model configured[\s\S]*successfully rolled out/,
  },
  { document: "docs/operations/scale.md", begins: "kubectl apply", prints: /parley-stable serverside-applied/ },
];
