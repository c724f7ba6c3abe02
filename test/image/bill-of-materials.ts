import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";

// Prints the CycloneDX bill of materials of the image whose files are in the folder that is named: npm's packages and Debian's.
// `npm sbom --omit=dev` leaves out what dev dependencies need as well, so that its whole list is cut to what is installed.

interface Component {
  readonly "bom-ref": string;
  readonly name: string;
  readonly version: string;
  readonly [key: string]: unknown;
}

interface Bill {
  readonly components: readonly Component[];
  readonly dependencies: readonly { readonly ref: string; readonly dependsOn?: readonly string[] }[];
  readonly metadata: { readonly component: Component };
  readonly [key: string]: unknown;
}

const [rootfs = ""] = process.argv.slice(2);
const project = join(import.meta.dirname, "../..");

const whole = JSON.parse(
  execFileSync("npm", ["sbom", "--package-lock-only", "--sbom-format=cyclonedx"], {
    cwd: project,
    encoding: "utf8",
    maxBuffer: 64 * 1024 * 1024,
  }),
) as Bill;
const installed = new Set(installedPackages());
const npm = whole.components.filter(({ name, version }) => installed.has(`${name}@${version}`));
const kept = new Set([whole.metadata.component["bom-ref"], ...npm.map((component) => component["bom-ref"])]);
const dependencies = whole.dependencies
  .filter(({ ref }) => kept.has(ref))
  .map(({ ref, dependsOn = [] }) => ({ ref, dependsOn: dependsOn.filter((one) => kept.has(one)) }));
process.stdout.write(
  `${JSON.stringify({ ...whole, components: [...npm, ...debianPackages()], dependencies }, null, 2)}\n`,
);

/** What npm has written down of what it installed, as `name@version`. */
function installedPackages(): string[] {
  const lock = JSON.parse(readFileSync(join(rootfs, "parley/node_modules/.package-lock.json"), "utf8")) as {
    packages: Record<string, { version: string; name?: string }>;
  };
  return Object.entries(lock.packages).map(
    ([path, { version, name }]) =>
      `${name ?? path.slice(path.lastIndexOf("node_modules/") + "node_modules/".length)}@${version}`,
  );
}

function debianPackages(): Component[] {
  const status = readFileSync(join(rootfs, "var/lib/dpkg/status"), "utf8");
  return status.split("\n\n").flatMap((paragraph) => {
    const field = (name: string): string => new RegExp(`^${name}: (.+)$`, "m").exec(paragraph)?.[1] ?? "";
    const [name, version, architecture] = [field("Package"), field("Version"), field("Architecture")];
    if (name === "" || !field("Status").endsWith(" installed")) return [];
    const purl = `pkg:deb/debian/${name}@${encodeURIComponent(version)}?arch=${architecture}`;
    return [{ "bom-ref": purl, type: "library", name, version, purl }];
  });
}
