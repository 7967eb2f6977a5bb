"""ESPnet's data sets with lazy uint8 video."""

import numpy as np
import pytest
import torch

from espnet2_avsr_llm.compat import espnet_dataset, espnet_iterable_dataset
from espnet2_avsr_llm.data.collate import collate
from espnet2_avsr_llm.data.dataset import AVDataset, EpochIterFactory, SpeechScpReader, VideoScpReader, register_data_types
from espnet2_avsr_llm.data.preprocess import Augmentation, Preprocessor
from espnet2_avsr_llm.llm.tokens import Tokens, byte_tokenizer

register_data_types()


def dataset(corpus, augmentation=None, seed=0):
    files = [(str(corpus / "train" / f), name, kind) for f, name, kind in FILES]
    return AVDataset(files, preprocess=Preprocessor(Tokens(byte_tokenizer()), augmentation, seed), float_dtype="float32")


FILES = [("wav.scp", "speech", "speech"), ("video.scp", "video", "video"), ("text", "text", "text")]


@pytest.mark.parametrize("kind,reader", [("speech", SpeechScpReader), ("video", VideoScpReader)])
def test_the_types_are_in_both_tables(kind, reader):
    assert espnet_dataset.DATA_TYPES[kind]["func"] is reader
    assert callable(espnet_iterable_dataset.DATA_TYPES[kind])
    # ESPnet takes the first type whose name is a prefix
    assert next(name for name in espnet_dataset.DATA_TYPES if kind.startswith(name)) == kind


def test_video_stays_in_bytes_and_the_rest_is_cast(corpus):
    utt, data = dataset(corpus)["train03"]
    assert utt == "train03" and data["video"].dtype == np.uint8 and data["video"].shape[1:] == (88, 88)
    assert data["speech"].dtype == np.float32 and data["text"].dtype == np.int64
    assert len(data["speech"]) == 640 * len(data["video"])


def test_stock_data_set_refuses_bytes(corpus):
    """The defect avoided: if ESPnet stops refusing uint8, :class:`AVDataset` can go."""
    stock = espnet_dataset.ESPnetDataset([(str(corpus / "train" / "video.scp"), "video", "video")], preprocess=lambda utt, data: data)
    with pytest.raises(NotImplementedError, match="uint8"):
        stock["train00"]


def test_nothing_is_decoded_before_it_is_asked_for(tmp_path):
    (tmp_path / "video.scp").write_text("a /absent/a.mp4\nb -\nc /absent/with space.mp4\n")
    reader = VideoScpReader(tmp_path / "video.scp", {"a", "b"})
    assert sorted(reader) == ["a", "b"] and len(reader) == 2
    assert reader["b"].shape == (0, 96, 96)
    with pytest.raises(Exception, match="/absent/a.mp4"):
        reader["a"]


def test_an_utterance_without_video(corpus, tmp_path):
    (tmp_path / "video.scp").write_text("train00 -\n")
    files = [(str(corpus / "train" / "wav.scp"), "speech", "speech"), (str(tmp_path / "video.scp"), "video", "video")]
    _, data = AVDataset(files, preprocess=Preprocessor(Tokens(byte_tokenizer()), Augmentation(), 0))["train00"]
    assert data["video"].shape == (0, 88, 88) and data["video"].dtype == np.uint8 and len(data["speech"]) > 0


def test_an_utterance_without_sound(corpus, tmp_path):
    (tmp_path / "wav.scp").write_text("train00 -\n")
    files = [(str(tmp_path / "wav.scp"), "speech", "speech"), (str(corpus / "train" / "video.scp"), "video", "video")]
    augmentation = Augmentation(noise_file=str(corpus / "train" / "data" / "train01.flac"))
    _, data = AVDataset(files, preprocess=Preprocessor(Tokens(byte_tokenizer()), augmentation, 0))["train00"]
    assert data["speech"].shape == (0,) and data["speech"].dtype == np.float32 and len(data["video"]) > 0


def epoch(corpus, number, workers, shuffle=False, seed=3):
    batches = [["train00", "train01"], ["train02"], ["train03"]]
    factory = EpochIterFactory(
        dataset=dataset(corpus, Augmentation(), seed), batches=batches, seed=seed, shuffle=shuffle, num_workers=workers, collate_fn=collate
    )
    rows = {}
    for utts, batch in factory.build_iter(number):
        for row, utt in enumerate(utts):
            rows[utt] = {n: batch[n][row, : batch[f"{n}_lengths"][row]] for n in ("speech", "video", "text")}
    return rows


def test_augmentation_does_not_depend_on_workers_order_or_process(corpus):
    expected = epoch(corpus, 2, workers=0)
    np.random.seed(1)
    for other in (epoch(corpus, 2, workers=2), epoch(corpus, 2, workers=0, shuffle=True)):
        assert other.keys() == expected.keys()
        assert all(torch.equal(other[u][n], expected[u][n]) for u in expected for n in expected[u])
    for change in (epoch(corpus, 3, workers=0), epoch(corpus, 2, workers=0, seed=4)):
        assert not any(torch.equal(change[u]["video"], expected[u]["video"]) for u in expected)
