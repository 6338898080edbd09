"""How work is shared among threads."""

import threading

import pytest
import torch

from gti_diag.measures.tiles import among_workers, at_once, one_thread_each, workers

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


def test_jobs_at_once_answer_in_their_order_and_the_first_failure_is_told():
    both = threading.Barrier(2, timeout=60)

    def meets(value):
        both.wait()
        return value

    def fails():
        raise ValueError("first")

    torch_threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert at_once([lambda: meets("a"), lambda: meets("b"), lambda: torch.get_num_threads()], CPU) == ["a", "b", 1]
        with pytest.raises(ValueError, match="first"):
            at_once([lambda: 1, fails, lambda: 1 / 0], CPU)
    finally:
        torch.set_num_threads(torch_threads)
