"""What holds for every frontend: batch invariance with and without LoRA, lengths, frozen weights, sources, devices."""

import numpy as np
import pytest
import torch

from espnet2_avsr_llm.data.filterbank import num_stacked, stacked_filterbanks
from espnet2_avsr_llm.frontend import FRONTENDS

SPEECH = dict(
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=64,
    conv_dim=[16] * 7,
    num_conv_pos_embeddings=16,
    num_conv_pos_embedding_groups=4,
    initializer_range=0.3,
)
FAMILIES = {
    "wavlm": ("wavlm", {"feat_extract_norm": "layer", "do_stable_layer_norm": True}),
    "wavlm-group": ("wavlm", {"feat_extract_norm": "group", "do_stable_layer_norm": False}),
    "hubert": ("hubert", {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}),
    "hubert-group": ("hubert", {"feat_extract_norm": "group", "do_stable_layer_norm": False}),
    "wav2vec2": ("wav2vec2", {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}),
    "wav2vec2-group": ("wav2vec2", {"feat_extract_norm": "group", "do_stable_layer_norm": False}),
    "data2vec": ("data2vec-audio", {"num_conv_pos_embeddings": 3, "conv_pos_kernel_size": 5}),
}
CASES = {
    "whisper-30s": ("whisper", "whisper", {}),
    "whisper-utterance": ("whisper", "whisper", {"window": "utterance"}),
    **{name: ("hf_speech", name, {}) for name in FAMILIES},
    "avhubert-video": ("avhubert", "avhubert", {}),
    "avhubert-audio": ("avhubert", "avhubert", {"streams": ["audio"]}),
    "avhubert-two-passes": ("avhubert", "avhubert", {"streams": ["audio", "video"]}),
    "avhubert-joint": ("avhubert", "avhubert", {"streams": ["audiovisual"]}),
}
FRAMES = (25, 0, 13, 1, 20)  # video frames of each row; its sound is as long, give or take a few samples
SAMPLES = (16000, 0, 8399, 620, 12801)


@pytest.fixture(scope="module")
def folders(sources, tmp_path_factory):
    """A source folder for each kind of encoder."""
    from transformers import AutoConfig, AutoModel

    found = dict(sources)
    for name, (family, options) in FAMILIES.items():
        torch.manual_seed(4)
        found[name] = str(tmp_path_factory.mktemp(name))
        AutoModel.from_config(AutoConfig.for_model(family, **SPEECH | options)).save_pretrained(found[name])
    return found


@pytest.fixture(scope="module")
def make(folders):
    """``make(case, lora)``: a frontend; LoRA's matrices are drawn, and none is zero."""

    def build(case, lora=None, **options):
        kind, source, conf = CASES[case]
        frontend = FRONTENDS[kind](folders[source], **conf, **options, lora=lora)
        torch.manual_seed(5)
        for name, parameter in frontend.named_parameters():
            if "lora_" in name:
                torch.nn.init.normal_(parameter, std=0.3)
        return frontend

    return build


@pytest.fixture(params=[None, {"rank": 2, "scale": 2.0}], ids=["frozen", "lora"])
def lora(request):
    return request.param


each_case = pytest.mark.parametrize("case", CASES)


def batch(frontend, dirty=0.0):
    """Rows of the lengths above, and what the frontend reads of them; padding holds ``dirty``."""
    rng = np.random.default_rng(6)
    waves = [rng.standard_normal(n).astype(np.float32) for n in SAMPLES]
    rows = {
        "speech": [stacked_filterbanks(w) if frontend.filterbanks else w for w in waves],
        "video": [rng.integers(0, 256, (n, 88, 88), dtype=np.uint8) for n in FRAMES],
    }
    pad = torch.nn.utils.rnn.pad_sequence
    return {
        name: (pad([torch.from_numpy(r) for r in rows[name]], batch_first=True, padding_value=dirty), torch.tensor([len(r) for r in rows[name]]))
        for name in frontend.inputs
    }


def row(inputs, i):
    return {name: (x[i : i + 1, : n[i]], n[i : i + 1]) for name, (x, n) in inputs.items()}


def test_every_frontend_is_tested_here():
    assert {kind for kind, _, _ in CASES.values()} == set(FRONTENDS)


@each_case
@torch.no_grad()
def test_alone_equals_in_batch_whatever_the_padding_holds(make, case, lora):
    frontend = make(case, lora)
    inputs = batch(frontend, dirty=9)
    for stream, (features, lengths) in frontend(**inputs).items():
        assert features.shape == (len(FRAMES), lengths.max(), frontend.streams[stream])
        for i, n in enumerate(lengths.tolist()):
            alone, length = frontend(**row(inputs, i))[stream]
            assert length.tolist() == [n] and alone.shape[1] == n
            torch.testing.assert_close(features[i, :n], alone[0], atol=1e-4, rtol=0)
            assert not features[i, n:].any()
        assert features[0].std() > 0.1 and features[2, : lengths[2]].std(0).max() > 0.01


@each_case
def test_num_frames_is_what_forward_gives(make, case):
    frontend = make(case)
    counts = [{"speech": samples, "video": frames} for samples, frames in zip(SAMPLES, FRAMES)]
    for stream, (features, lengths) in frontend(**batch(frontend)).items():
        assert lengths.tolist() == [frontend.num_frames(stream, of) for of in counts]
        assert frontend.num_frames(stream, {}) == 0


@each_case
def test_lora_is_trained_and_nothing_else(make, case):
    frontend = make(case, {"rank": 2, "scale": 2.0}).train()
    plain = make(case)
    assert plain.provenance == frontend.provenance and plain.frozen and not frontend.frozen
    trained = {n: p for n, p in frontend.named_parameters() if p.requires_grad}
    layers = len([m for n, m in plain.named_modules() if n.endswith(("q_proj", "v_proj"))])
    assert len(trained) == 2 * layers and all("lora_" in n and p.dtype == torch.float32 for n, p in trained.items())
    assert {n for n in frontend.state_dict() if not frontend.is_external(n)} >= set(trained)
    inputs = batch(frontend)
    features, expected = ({s: x for s, (x, _) in f(**inputs).items()} for f in (frontend, plain))
    sum(x.square().mean() for x in features.values()).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in trained.values())
    assert all(p.grad is None for n, p in frontend.named_parameters() if n not in trained)
    assert all((features[s] - expected[s]).abs().max() > 1e-3 for s in features)


@each_case
def test_stays_in_eval_mode_and_keeps_its_buffers(make, case):
    frontend = make(case).train()
    assert not any(m.training for m in frontend.modules())
    before = {k: v.clone() for k, v in frontend.state_dict().items()}
    first, second = (list(frontend(**batch(frontend)).values())[0][0] for _ in range(2))
    assert torch.equal(first, second) and not first.requires_grad
    assert all(torch.equal(v, before[k]) for k, v in frontend.state_dict().items())


@each_case
def test_only_empty_rows(make, case):
    frontend = make(case)
    shapes = {"speech": (2, 0, 104) if frontend.filterbanks else (2, 0), "video": (2, 0, 88, 88)}
    inputs = {name: (torch.zeros(shapes[name]), torch.tensor([0, 0])) for name in frontend.inputs}
    for stream, (features, lengths) in frontend(**inputs).items():
        assert features.shape == (2, 0, frontend.streams[stream]) and lengths.tolist() == [0, 0]


@each_case
@torch.no_grad()
def test_bfloat16(make, case):
    frontend, full = make(case, {"rank": 2, "scale": 2.0}, dtype="bfloat16"), make(case, {"rank": 2, "scale": 2.0})
    assert frontend.dtype == torch.bfloat16 and frontend.provenance["digest"] == full.provenance["digest"]
    for stream, (features, _) in frontend(**batch(frontend)).items():
        expected = full(**batch(full))[stream][0]
        assert (features.float() - expected).square().mean().sqrt() < 0.05 * expected.std()


@each_case
def test_on_meta_the_configuration_is_enough(make, case):
    with torch.device("meta"):
        frontend = make(case)
    assert {p.device.type for p in frontend.parameters()} == {"meta"}
    assert frontend.streams == make(case).streams and frontend.inputs == make(case).inputs


@each_case
def test_unknown_lora_option_names_the_nearest(make, case):
    with pytest.raises(ValueError, match=r"lora has no option 'rnk' \(did you mean 'rank'\?\); its options: rank, scale, zero"):
        make(case, {"rnk": 2, "scale": 1.0})


@each_case
def test_a_device_of_its_own(make, case):
    model = torch.nn.ModuleDict({"kept": make(case, device="cpu"), "moved": make(case)}).to("meta")
    assert {p.device.type for p in model["kept"].parameters()} == {"cpu"} and model["kept"].device.type == "cpu"
    assert {p.device.type for p in model["moved"].parameters()} == {"meta"}


@pytest.mark.parametrize("samples", [0, 1, 400, 401, 1599, 16000, 16001])
def test_filterbanks_and_video_have_one_frame_rate(samples):
    assert num_stacked(samples) == len(stacked_filterbanks(np.ones(samples, np.float32)))
    assert num_stacked(25 * 640) == 25
