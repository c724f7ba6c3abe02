import { writeFileSync } from "node:fs";
import * as z from "zod";
import { parleyYamlSchema } from "./parley-yaml.ts";

// `npm run generate:schema`: writes the JSON Schema of parley.yaml, for editors.
const schema = { title: "parley.yaml", ...z.toJSONSchema(parleyYamlSchema, { io: "input" }) };
writeFileSync(new URL("../docs/parley.schema.json", import.meta.url), `${JSON.stringify(schema, null, 2)}\n`);
