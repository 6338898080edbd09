"""How work is shared among threads."""

import torch

from gti_diag.measures.tiles import among_workers, one_thread_each, workers

CPU = torch.device("cpu")


def test_work_is_shared_among_workers_while_torch_itself_takes_one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with among_workers():
            assert workers(CPU) == 3 and torch.get_num_threads() == 1
            with among_workers():  # once more changes nothing
                assert workers(CPU) == 3
            with one_thread_each(workers(CPU)) as pool:  # a worker shares its work no further
                assert list(pool.map(lambda _: (workers(CPU), torch.get_num_threads()), range(4))) == [(1, 1)] * 4
        assert workers(CPU) == torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_a_gpu_is_not_shared():
    with among_workers():
        assert workers(torch.device("cuda")) == 1
