"""The scan sees NaN and infinity wherever a storage type can hold them: in a number, or in the scale of a block."""

import json
import struct

import numpy as np
import pytest
import torch

from gti_diag.analysis.scan import scan

NAN, INFINITY = b"\x00\x7e", b"\x00\x7c"  # as float16
SCALE = {"Q8_0": 0, "Q4_0": 0, "Q5_1": 2, "Q2_K": 80, "Q4_K": 0, "Q6_K": 208, "IQ4_XS": 0}  # its place in a block


def not_finite(path):
    findings = scan(path)["matrices"]["input"]["findings"]
    return next((finding["ids"] for finding in findings if finding["kind"] == "not_finite"), None)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", SCALE)
def test_a_scale_that_is_not_finite(tmp_path, kind):
    import gguf

    name = gguf.GGMLQuantizationType[kind]
    block, width = gguf.GGML_QUANT_SIZES[name]
    packed = np.random.default_rng(0).integers(0, 60, (40, 512 // block, width), dtype=np.uint8)
    for row, scale in ((7, NAN), (9, INFINITY)):
        packed[row, -1, SCALE[kind] : SCALE[kind] + 2] = np.frombuffer(scale, dtype=np.uint8)
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_token_list([f"t{n}" for n in range(40)])
    writer.add_tensor("token_embd.weight", packed.reshape(40, -1), raw_dtype=name)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert not_finite(tmp_path / "m.gguf") == [7, 9]


@pytest.mark.parametrize(
    ("kind", "stored", "bits"),
    [
        ("float8_e4m3fn", "F8_E4M3", 0x7F),
        ("float8_e5m2", "F8_E5M2", 0x7E),
        ("float8_e5m2", "F8_E5M2", 0x7C),
        ("float8_e4m3fnuz", "F8_E4M3FNUZ", 0x80),  # which safetensors 0.5 cannot write
    ],
)
def test_an_eight_bit_number_that_is_not_finite(tmp_path, kind, stored, bits):
    rows = torch.randn(40, 64, generator=torch.Generator().manual_seed(0)).to(getattr(torch, kind))
    rows.view(torch.uint8)[7, 3] = bits
    listed = {"dtype": stored, "shape": [40, 64], "data_offsets": [0, rows.numel()]}
    header = json.dumps({"model.embed_tokens.weight": listed}).encode()
    content = struct.pack("<Q", len(header)) + header + rows.view(torch.uint8).numpy().tobytes()
    (tmp_path / "model.safetensors").write_bytes(content)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": 64, "vocab_size": 40}))
    assert not_finite(tmp_path) == [7]
