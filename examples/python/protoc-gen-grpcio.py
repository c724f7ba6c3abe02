"""A plugin for buf that makes messages, type stubs and gRPC stubs: grpcio-tools has them all in its own protoc only."""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest, CodeGeneratorResponse
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc

request = CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
response = CodeGeneratorResponse(supported_features=CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL)
with TemporaryDirectory() as folder:
    protos, out = Path(folder, "protos.binpb"), Path(folder, "out")
    protos.write_bytes(FileDescriptorSet(file=request.proto_file).SerializeToString())
    out.mkdir()
    outputs = [f"--{name}_out={out}" for name in ("python", "pyi", "grpc_python")]
    if protoc.main(["protoc", f"--descriptor_set_in={protos}", *outputs, *request.file_to_generate]) != 0:
        sys.exit("protoc failed")
    for path in sorted(path for path in out.rglob("*.py*")):
        response.file.add(name=str(path.relative_to(out)), content=path.read_text())
sys.stdout.buffer.write(response.SerializeToString())
