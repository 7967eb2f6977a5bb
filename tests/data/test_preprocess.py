"""From a loaded utterance to model inputs (contracts 8 and 9)."""

import numpy as np
import pytest
import soundfile

from espnet2_avsr_llm.data.preprocess import Augmentation, Preprocessor, eval_inputs
from espnet2_avsr_llm.llm.tokens import Tokens, byte_tokenizer


@pytest.fixture(scope="module")
def tokens():
    return Tokens(byte_tokenizer())


def utterance(frames=50, seed=0):
    rng = np.random.default_rng(seed)
    speech = rng.standard_normal(frames * 640).astype(np.float32)
    return {"speech": speech, "video": rng.integers(1, 256, (frames, 96, 96), dtype=np.uint8), "text": "bin blue"}


def test_evaluation_crops_the_centre_and_normalises():
    data = utterance()
    out = eval_inputs(data["speech"], data["video"])
    assert out["video"].dtype == np.uint8 and np.array_equal(out["video"], data["video"][:, 4:92, 4:92])
    assert out["speech"].dtype == np.float32
    np.testing.assert_allclose([out["speech"].mean(), out["speech"].std()], [0, 1], atol=1e-5)


@pytest.mark.parametrize("samples", [31000, 33000])
def test_sound_is_made_as_long_as_the_video(samples):
    data = utterance()
    out = eval_inputs(np.ones(samples, np.float32) + data["speech"].repeat(2)[:samples], data["video"])
    assert len(out["speech"]) == 50 * 640


@pytest.mark.parametrize("empty", ["speech", "video"])
def test_a_missing_modality_is_an_empty_row_and_leaves_the_other_whole(empty):
    data = utterance()
    shape = {"speech": (0,), "video": (0, 96, 96)}[empty]
    data[empty] = np.zeros(shape, data[empty].dtype)
    out = eval_inputs(data["speech"], data["video"])
    assert out["speech"].shape == ((0,) if empty == "speech" else (32000,))
    assert out["video"].shape == ((0, 88, 88) if empty == "video" else (50, 88, 88))


def test_an_absent_modality_is_absent():
    assert set(eval_inputs(speech=utterance()["speech"])) == {"speech"}


def test_validation_equals_inference_and_text_has_neither_bos_nor_eos(tokens):
    data = utterance()
    out = Preprocessor(tokens, None, seed=0)("utt", data)
    expected = eval_inputs(data["speech"], data["video"])
    assert all(np.array_equal(out[n], expected[n]) for n in expected)
    assert out["text"].tolist() == tokens.encode("bin blue") and out["text"].dtype == np.int64


def test_text_may_be_empty(tokens):
    assert Preprocessor(tokens, None, 0)("utt", {"text": ""})["text"].shape == (0,)


def drawn(tokens, seed=1, epoch=1, utt="utt", augmentation=None):
    preprocessor = Preprocessor(tokens, augmentation or Augmentation(), seed)
    preprocessor.epoch = epoch
    return preprocessor(utt, utterance())


def test_augmentation_depends_on_seed_epoch_and_utterance_alone(tokens):
    first = drawn(tokens)
    np.random.seed(7)
    again = drawn(tokens)
    assert all(np.array_equal(first[n], again[n]) for n in first)
    for change in (dict(seed=2), dict(epoch=2), dict(utt="other")):
        other = drawn(tokens, **change)
        assert not np.array_equal(first["speech"], other["speech"]) and not np.array_equal(first["video"], other["video"]), change


def test_the_order_of_utterances_does_not_matter(tokens):
    preprocessor = Preprocessor(tokens, Augmentation(), 1)
    preprocessor.epoch = 1
    forward = {u: preprocessor(u, utterance()) for u in "abc"}
    backward = {u: preprocessor(u, utterance()) for u in "cba"}
    assert all(np.array_equal(forward[u][n], backward[u][n]) for u in "abc" for n in forward[u])


def test_training_masks_and_evaluation_does_not(tokens):
    blanked = sum(not frame.any() for epoch in range(5) for frame in drawn(tokens, epoch=epoch)["video"])
    assert blanked > 0
    assert all(frame.any() for epoch in range(5) for frame in drawn(tokens, epoch=epoch, augmentation=Augmentation(time_mask=False))["video"])


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    path = tmp_path_factory.mktemp("noise") / "babble.wav"
    soundfile.write(path, np.random.default_rng(5).standard_normal(16000).astype(np.float32) * 0.1, 16000)
    return str(path)


def test_null_is_clean_and_zero_decibel_is_not(tokens, noise):
    plain, clean, loud = (
        drawn(tokens, augmentation=Augmentation(time_mask=False, noise_file=file, snrs=snrs))["speech"]
        for file, snrs in ((None, (0,)), (noise, (None,)), (noise, (0,)))
    )
    np.testing.assert_allclose(clean, plain, atol=1e-6)
    correlation = np.corrcoef(loud, plain)[0, 1]
    assert correlation == pytest.approx(np.sqrt(0.5), abs=0.02)  # equal power of speech and noise


def test_all_ratios_are_drawn(tokens, noise):
    augmentation = Augmentation(time_mask=False, noise_file=noise, snrs=(-10, None))
    preprocessor = Preprocessor(tokens, augmentation, 1)
    clean = Preprocessor(tokens, None, 1)("x", {"speech": utterance()["speech"]})["speech"]
    alike = [np.corrcoef(preprocessor(str(i), {"speech": utterance()["speech"]})["speech"], clean)[0, 1] > 0.9 for i in range(20)]
    assert 4 < sum(alike) < 16
