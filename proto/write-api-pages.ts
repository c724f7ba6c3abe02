import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import {
  createFileRegistry,
  type DescEnum,
  type DescField,
  type DescFile,
  type DescMessage,
  type DescService,
  fromBinary,
  ScalarType,
} from "@bufbuild/protobuf";
import { FileDescriptorSetSchema, MethodOptions_IdempotencyLevel } from "@bufbuild/protobuf/wkt";
import { getComments } from "@bufbuild/protoplugin";

// `npm run generate`: the protos' comments, which are the contract, as pages of the documentation.

const PAGES = [
  { file: "docs/api/chat.md", package: "parley.chat.v1", title: "Chat and sessions" },
  { file: "docs/api/usage.md", package: "parley.usage.v1", title: "Usage" },
] as const;

const root = join(import.meta.dirname, "..");
const image = execFileSync("buf", ["build", "proto", "--output", "-#format=binpb"], {
  cwd: root,
  maxBuffer: 64 * 1024 * 1024,
});
const set = fromBinary(FileDescriptorSetSchema, image);
const registry = createFileRegistry(set);
const files = set.file.map(({ name }) => registry.getFile(name)).filter((file) => file !== undefined);
for (const page of PAGES) writeFileSync(join(root, page.file), render(page));

function render({ package: name, title }: (typeof PAGES)[number]): string {
  const own = files.filter((file) => file.proto.package === name);
  const services = own.flatMap((file) => file.services);
  const types = own.flatMap(typesOf).toSorted((a, b) => (nameIn(a) < nameIn(b) ? -1 : 1));
  return [
    "<!-- Made of the protos by `npm run generate`. -->",
    `# ${title}`,
    `Package \`${name}\`: ${own.map((file) => `\`${file.name}.proto\``).join(", ")}. In JSON, names are written in camelCase, ` +
      "int64 as strings, and fields that have their type's default are left out.",
    ...services.flatMap(renderService),
    "## Messages and enums",
    ...types.flatMap((type) => [
      `### ${nameIn(type)}`,
      said(type),
      type.kind === "enum" ? valuesOf(type) : fieldsOf(type),
    ]),
  ]
    .filter((block) => block !== "")
    .join("\n\n")
    .concat("\n");
}

/** Messages and enums, those within messages included. */
function typesOf(file: DescFile): (DescMessage | DescEnum)[] {
  const nested = (message: DescMessage): (DescMessage | DescEnum)[] =>
    message.proto.options?.mapEntry ? [] : [message, ...message.nestedMessages.flatMap(nested), ...message.nestedEnums];
  return [...file.messages.flatMap(nested), ...file.enums];
}

/** A type's name without its package: `Budget`, `Budget.Scope`. */
function nameIn(type: DescMessage | DescEnum): string {
  return type.typeName.slice(type.file.proto.package.length + 1);
}

function renderService(service: DescService): string[] {
  return [
    `## ${service.name}`,
    said(service),
    ...service.methods.flatMap((method) => {
      const stream = method.methodKind === "server_streaming" ? "a stream of " : "";
      const reads = method.idempotency === MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS;
      return [
        `### ${method.name}`,
        said(method),
        `Takes ${linkTo(method.input)}, answers ${stream}${linkTo(method.output)}.${reads ? " Has no side effects: Connect takes GET too." : ""}`,
      ];
    }),
  ];
}

function fieldsOf(message: DescMessage): string {
  if (message.fields.length === 0) return "It has no fields.";
  return table(
    ["field", "no.", "type", "meaning"],
    message.fields.map((field) => [
      `\`${field.name}\``,
      String(field.number),
      `${typeOf(field)}${field.oneof === undefined ? "" : `, one of \`${field.oneof.name}\``}`,
      said(field),
    ]),
  );
}

function valuesOf({ values }: DescEnum): string {
  return table(
    ["value", "no.", "meaning"],
    values.map((value) => [`\`${value.name}\``, String(value.number), said(value)]),
  );
}

function typeOf(field: DescField): string {
  switch (field.fieldKind) {
    case "scalar":
      return scalar(field.scalar);
    case "message":
      return linkTo(field.message);
    case "enum":
      return linkTo(field.enum);
    case "list":
      return `repeated ${field.listKind === "scalar" ? scalar(field.scalar) : linkTo(field.listKind === "enum" ? field.enum : field.message)}`;
    case "map":
      return `map of ${scalar(field.mapKey)} to ${field.mapKind === "scalar" ? scalar(field.scalar) : linkTo(field.mapKind === "enum" ? field.enum : field.message)}`;
  }
}

function scalar(type: ScalarType): string {
  return ScalarType[type].toLowerCase();
}

function linkTo(type: DescMessage | DescEnum): string {
  const page = PAGES.find((one) => one.package === type.file.proto.package);
  if (page === undefined) return `\`${type.name}\``;
  const anchor = nameIn(type).toLowerCase().replaceAll(".", "");
  return `[${nameIn(type)}](${page.file.split("/").at(-1)}#${anchor})`;
}

/** A comment as Markdown; in a table it has to stay one line. */
function said(desc: Parameters<typeof getComments>[0]): string {
  const { leading = "" } = getComments(desc);
  if (leading === "") throw new Error(`${desc.toString()} has no comment`);
  const text = leading
    .split("\n")
    .map((line) => line.replace(/^ /, ""))
    .join("\n")
    .trim()
    // What Markdown, Vue or a table would take for its own.
    .replace(/[<{*|]/g, (sign) => `&#${sign.charCodeAt(0)};`)
    .replace(/\b[A-Za-z]+_[A-Za-z_]*[A-Za-z]\b/g, (word) => `\`${word}\``);
  return desc.kind === "message" || desc.kind === "service" || desc.kind === "rpc" || desc.kind === "enum"
    ? text
    : text.replaceAll(/\s*\n\s*/g, " ");
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string => `| ${cells.join(" | ")} |`;
  return [line(head), line(head.map(() => "---")), ...rows.map(line)].join("\n");
}
