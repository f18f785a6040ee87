#!/usr/bin/env python3
"""A protoc plugin that runs the grpc_python generator inside grpcio-tools (which ships it only as part of its own protoc)."""

import pathlib
import subprocess
import sys
import tempfile

from google.protobuf.compiler import plugin_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorSet

request = plugin_pb2.CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
response = plugin_pb2.CodeGeneratorResponse(supported_features=plugin_pb2.CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL)
with tempfile.TemporaryDirectory() as tmp:
    root = pathlib.Path(tmp)
    (root / "in.binpb").write_bytes(FileDescriptorSet(file=request.proto_file).SerializeToString())
    (root / "out").mkdir()
    subprocess.run(
        [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            f"--descriptor_set_in={root / 'in.binpb'}",
            f"--grpc_python_out={root / 'out'}",
            *request.file_to_generate,
        ],
        check=True,
    )
    for path in sorted((root / "out").rglob("*.py")):
        response.file.add(name=str(path.relative_to(root / "out")), content=path.read_text())
sys.stdout.buffer.write(response.SerializeToString())
