import type { CallToolResult } from "@modelcontextprotocol/sdk/types.js";

/** A tool's result as text, since models are told nothing else: what is no text is named. */
export function resultText({ content, structuredContent }: CallToolResult): string {
  const blocks = (content ?? []).map((block) => {
    switch (block.type) {
      case "text":
        return block.text;
      case "resource":
        return "text" in block.resource ? block.resource.text : named("resource", block.resource.mimeType);
      case "resource_link":
        return `[resource ${block.uri}]`;
      default:
        return named(block.type, block.mimeType);
    }
  });
  // By the specification it stands in a text block too.
  if (blocks.length === 0 && structuredContent !== undefined) return JSON.stringify(structuredContent);
  return blocks.join("\n");
}

function named(kind: string, mimeType = "of an unknown type"): string {
  return `[${kind}, ${mimeType}: not shown]`;
}
