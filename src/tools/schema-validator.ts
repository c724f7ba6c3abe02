import type { JsonSchemaType, JsonSchemaValidator } from "@modelcontextprotocol/sdk/validation";
import { AjvJsonSchemaValidator } from "@modelcontextprotocol/sdk/validation/ajv";
import { Ajv } from "ajv";
import addFormats from "ajv-formats";
import { type LinearPattern, linearPattern } from "../engine/linear-pattern.ts";

/**
 * Makes the check of a server's schema, as the SDK does but for its patterns: servers write those and models the texts, so that
 * they are matched by RE2, which none holds up. One that RE2 does not know is left to the server. Throws where the schema is none.
 */
export function schemaValidator<T>(schema: JsonSchemaType): JsonSchemaValidator<T> {
  // An Ajv each: it remembers schemas by their $id, which two tools may both have. Its options are the SDK's.
  const ajv = new Ajv({
    strict: false,
    validateFormats: true,
    validateSchema: false,
    allErrors: true,
    code: { regExp: patternOf },
  });
  addFormats.default(ajv);
  return new AjvJsonSchemaValidator(ajv).getValidator<T>(schema);
}

/** The same, of what tools say: made when it is needed, and a schema that is none lets anything pass. The tool is of use all the same. */
export function lenientSchemaValidator<T>(schema: JsonSchemaType): JsonSchemaValidator<T> {
  let validate: JsonSchemaValidator<T> | undefined;
  return (input) => {
    try {
      validate ??= schemaValidator<T>(schema);
    } catch {
      validate = (anything) => ({ valid: true, data: anything as T, errorMessage: undefined });
    }
    return validate(input);
  };
}

const patternOf = Object.assign(
  (pattern: string): LinearPattern => {
    try {
      return linearPattern(pattern);
    } catch {
      return { test: () => true };
    }
  },
  // Ajv asks for it where it writes its checks to a file, which is not done here.
  { code: "" },
);
