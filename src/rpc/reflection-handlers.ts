import {
  type AnyDesc,
  create,
  createRegistry,
  type DescFile,
  type DescMessage,
  type DescService,
  type Registry,
  toBinary,
} from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import { Code, type ConnectRouter } from "@connectrpc/connect";
import * as v1 from "../../gen/grpc/reflection/v1/reflection_pb.js";
import * as v1alpha from "../../gen/grpc/reflection/v1alpha/reflection_pb.js";

/**
 * Serves gRPC server reflection, v1 and v1alpha, from the generated descriptors, so that clients such as grpcurl need no
 * proto file. Listed are the services that stand on the router when this is called, reflection itself, and no others;
 * everything that they import can be asked for, and so can the files that no service imports but error details are in
 * (`alsoKnown`): clients decode those by the descriptors that reflection gives.
 */
export function registerReflection(
  router: ConnectRouter,
  services: readonly DescService[],
  { alsoKnown = [] }: { alsoKnown?: readonly DescFile[] } = {},
): void {
  const listed = new Set([
    ...services,
    ...router.handlers.map((handler) => handler.service),
    v1.ServerReflection,
    v1alpha.ServerReflection,
  ]);
  const answer = createReflection([...listed], alsoKnown);
  router.service(v1.ServerReflection, {
    async *serverReflectionInfo(requests) {
      for await (const request of requests) {
        const { host: validHost, messageRequest } = request;
        yield create(v1.ServerReflectionResponseSchema, {
          validHost,
          originalRequest: request,
          messageResponse: answer(messageRequest),
        });
      }
    },
  });
  router.service(v1alpha.ServerReflection, {
    async *serverReflectionInfo(requests) {
      for await (const request of requests) {
        const { host: validHost, messageRequest } = request;
        yield create(v1alpha.ServerReflectionResponseSchema, {
          validHost,
          originalRequest: request,
          messageResponse: answer(messageRequest),
        });
      }
    },
  });
}

/** The two versions have the same messages under different names, so that one answer serves both. */
type Question = v1.ServerReflectionRequest["messageRequest"] | v1alpha.ServerReflectionRequest["messageRequest"];
type Answer =
  | { case: "listServicesResponse"; value: { service: { name: string }[] } }
  | { case: "fileDescriptorResponse"; value: { fileDescriptorProto: Uint8Array[] } }
  | { case: "allExtensionNumbersResponse"; value: { baseTypeName: string; extensionNumber: number[] } }
  | { case: "errorResponse"; value: { errorCode: Code; errorMessage: string } };

/** Answers one question; what there is not is an answer too (NOT_FOUND), and the stream goes on. */
function createReflection(
  services: readonly DescService[],
  alsoKnown: readonly DescFile[],
): (question: Question) => Answer {
  const roots = [...services.map((service) => service.file), ...alsoKnown];
  const files = new Map(roots.flatMap((root) => [...withImports(root)]).map((file) => [fileName(file), file]));
  const symbols = indexSymbols(files.values());
  const registry = createRegistry(...files.values());
  const names = services.map((service) => ({ name: service.typeName })).sort((a, b) => (a.name < b.name ? -1 : 1));

  return (question) => {
    switch (question.case) {
      case "listServices":
        return { case: "listServicesResponse", value: { service: names } };
      case "fileByFilename":
        return filesAnswer(files.get(question.value));
      case "fileContainingSymbol":
        return filesAnswer(symbols.get(question.value));
      case "fileContainingExtension": {
        const { containingType, extensionNumber } = question.value;
        return filesAnswer(extensionsOf(containingType, registry).get(extensionNumber));
      }
      case "allExtensionNumbersOfType": {
        if (registry.getMessage(question.value) === undefined)
          return errorAnswer(Code.NotFound, "no such message type");
        const numbers = [...extensionsOf(question.value, registry).keys()].sort((a, b) => a - b);
        const value = { baseTypeName: question.value, extensionNumber: numbers };
        return { case: "allExtensionNumbersResponse", value };
      }
      default:
        return errorAnswer(Code.InvalidArgument, "the request asks for nothing that is known here");
    }
  };
}

/** The file and, so that nobody has to ask again, all that it imports. */
function filesAnswer(file: DescFile | undefined): Answer {
  if (file === undefined) return errorAnswer(Code.NotFound, "no such file, symbol or extension");
  const protos = [...withImports(file)].map(({ proto }) => toBinary(FileDescriptorProtoSchema, proto));
  return { case: "fileDescriptorResponse", value: { fileDescriptorProto: protos } };
}

function errorAnswer(errorCode: Code, errorMessage: string): Answer {
  return { case: "errorResponse", value: { errorCode, errorMessage } };
}

/** The file first, then its imports, each once. */
function withImports(file: DescFile, seen = new Set<DescFile>()): Set<DescFile> {
  if (seen.has(file)) return seen;
  seen.add(file);
  for (const imported of file.dependencies) withImports(imported, seen);
  return seen;
}

/** The path that protos import the file by; protobuf-es leaves out its ending. */
function fileName(file: DescFile): string {
  return file.proto.name;
}

function extensionsOf(typeName: string, registry: Registry): Map<number, DescFile> {
  const found = new Map<number, DescFile>();
  for (const type of registry) {
    if (type.kind === "extension" && type.extendee.typeName === typeName) found.set(type.number, type.file);
  }
  return found;
}

/** Full names of all that the files declare: types, methods, fields, oneofs, enum values, extensions. */
function indexSymbols(files: Iterable<DescFile>): Map<string, DescFile> {
  const symbols = new Map<string, DescFile>();
  for (const file of files) {
    for (const type of typesOf(file)) {
      for (const name of namesIn(type)) symbols.set(name, file);
    }
  }
  return symbols;
}

/** What a file or a message declares, and all that is within. */
function* typesOf(scope: DescFile | DescMessage): Generator<AnyDesc> {
  const messages = scope.kind === "file" ? scope.messages : scope.nestedMessages;
  yield* scope.kind === "file" ? scope.enums : scope.nestedEnums;
  yield* scope.kind === "file" ? scope.extensions : scope.nestedExtensions;
  if (scope.kind === "file") yield* scope.services;
  for (const message of messages) {
    yield message;
    yield* typesOf(message);
  }
}

function namesIn(type: AnyDesc): string[] {
  switch (type.kind) {
    case "service":
      return [type.typeName, ...type.methods.map((method) => `${type.typeName}.${method.name}`)];
    case "message":
      return [type.typeName, ...[...type.fields, ...type.oneofs].map((member) => `${type.typeName}.${member.name}`)];
    case "enum": {
      // Values are their enum's siblings, as in C++.
      const scope = type.typeName.slice(0, type.typeName.lastIndexOf(".") + 1);
      return [type.typeName, ...type.values.map((value) => `${scope}${value.name}`)];
    }
    case "extension":
      return [type.typeName];
    default:
      return [];
  }
}
