"""The recipes of published corpora on generated ones in the same layouts: their stages run by run.sh, their sets, their READMEs."""

import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from espnet2_avsr_llm.bin import prepare
from espnet2_avsr_llm.data.roi.crop import _MEAN_FACE
from espnet2_avsr_llm.data.tables import read_dir, read_table
from layouts import make_crops, make_lrs2, make_lrs3, make_muavic, make_vox2, write_clip, write_media
from taught_whisper import make_taught_whisper

ROOT = Path(__file__).parents[2]
RECIPES = ("lrs3", "lrs2", "muavic", "vox2")
STAGE_1 = ("--stage", "1", "--stop_stage", "1")


@pytest.fixture
def recipe(tmp_path):
    """``recipe(name)``: a copy of a recipe's folder that links to the real template; ``run(*options, **environment)`` runs it."""

    def copy(name):
        source, folder = ROOT / "egs2" / name / "avsr_llm1", tmp_path / "egs2" / name / "avsr_llm1"
        shutil.copytree(source / "local", folder / "local")
        shutil.copy(source / "run.sh", folder)
        for link in (path for path in source.iterdir() if path.is_symlink()):
            (folder / link.name).symlink_to(link.resolve(strict=True))

        def run(*options, **env):
            env = {**os.environ, "AVSR_LLM_ENV": sys.prefix, "PYTHONPATH": str(ROOT), **env}
            return subprocess.run(["./run.sh", *map(str, options)], cwd=folder, env=env, capture_output=True, text=True, timeout=300)

        run.data = folder / "data"
        run.sizes = lambda: {path.parent.name: len(path.read_text().splitlines()) for path in run.data.glob("*/text")}
        return run

    return copy


@pytest.mark.parametrize("name", RECIPES)
def test_links_and_executables_are_those_of_the_other_recipes(name):
    mini, own = (ROOT / "egs2" / recipe / "avsr_llm1" for recipe in ("mini_av", name))
    links = {path.name: os.readlink(path) for path in mini.iterdir() if path.is_symlink() and path.name != "compare.sh"}
    assert {path.name: os.readlink(path) for path in own.iterdir() if path.is_symlink()} == links
    assert all(os.access(own / script, os.X_OK) for script in ("run.sh", "local/data.sh"))


@pytest.mark.parametrize("name", RECIPES)
def test_without_a_corpus_the_recipe_says_where_to_name_it(recipe, name):
    out = recipe(name)(*STAGE_1, **{name.upper(): ""})
    assert out.returncode == 2 and f"Error: {name.upper()} is empty: give the corpus's folder in db.sh (README.md says how" in out.stdout


@pytest.mark.parametrize("name", RECIPES)
def test_readme_commands_use_known_options(recipe, name):
    folder = recipe(name).data.parent  # a command may make a link
    readme = (ROOT / "egs2" / name / "avsr_llm1/README.md").read_text(encoding="utf-8")
    typed = [line.split("  #")[0] for block in re.findall(r"```bash\n(.*?)```", readme, re.DOTALL) for line in block.replace("\\\n", " ").splitlines()]
    commands = [line for line in typed if "run.sh" in line]
    assert commands
    for command in commands:
        out = subprocess.run(["bash", "-c", f"{command} --help"], cwd=folder, capture_output=True, text=True)
        assert out.returncode == 0 and "usage: ./avsr_llm.sh" in out.stdout, command + out.stdout + out.stderr
        opts = re.search(r'--local_data_opts "(.*?)"', command)
        out = subprocess.run(["bash", "-c", f"local/data.sh {opts[1] if opts else ''} --help"], cwd=folder, capture_output=True, text=True)
        assert out.returncode == 0 and "Usage: " in out.stdout, command + out.stdout + out.stderr
    for path in re.findall(r"conf/train/[\w/]+\.yaml", readme):
        assert (ROOT / path).is_file(), path


def test_lrs2(recipe, tmp_path):
    run = recipe("lrs2")
    (tmp_path / "lrs2").mkdir()
    make_lrs2(tmp_path / "lrs2/mvlrs_v1", tmp_path / "lrs2")
    out = run(*STAGE_1, LRS2=str(tmp_path / "lrs2"), AVHUBERT="", HF_HOME=str(tmp_path))
    assert out.returncode == 0, out.stdout + out.stderr
    assert run.sizes() == {"train_28h": 2, "train_223h": 6, "valid": 1, "test": 2}
    # the parts of the configurations in use are looked for first, and nothing ends for want of them
    missing = [f"Warning: stage 5 will stop at this: {part}: " for part in ("audio_frontend", "video_frontend", "llm")]
    assert all(out.stderr.count(warning) == 1 for warning in missing), out.stderr


@pytest.mark.parametrize("name", RECIPES)
def test_decoding_is_that_of_the_papers(recipe, name):
    assert "--inference_config conf/decode/beam15.yaml" in recipe(name)("--stage", "17").stdout


@pytest.mark.parametrize("name", RECIPES)
def test_avhubert_is_named_in_one_place(recipe, tmp_path, name):
    """AVHUBERT becomes the source of all configurations, whichever recipe runs; no warning, and no part of the experiment's name."""
    run, link = recipe(name), tmp_path / "egs2" / name / "avsr_llm1/avhubert_large"
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        out = run("--stage", "17", AVHUBERT=str(tmp_path / folder))
        assert out.returncode == 0 and os.readlink(link) == str(tmp_path / folder), out.stdout + out.stderr
    sources = re.findall(r"source: (\S+)", "".join(path.read_text() for path in (ROOT / "conf/train").glob("*.yaml")))
    assert set(sources) == {link.name}
    if name == "vox2":  # stage 1 as far as the corpus, which is not there
        out = run(*STAGE_1, "--asr_config", "conf/train/llama_avsr_vsr.yaml", VOX2=str(tmp_path / "absent"), HF_HOME=str(tmp_path))
        assert "stop at this: llm: " in out.stderr and "frontend" not in out.stderr, out.stderr


def test_lrs3_from_videos_and_published_landmarks_to_crops(recipe, tmp_path):
    """Stages 1 to 4: a pretrain file of 18 s becomes two utterances, each cropped by its own part of the landmarks, of a face that moves."""
    corpus, run = tmp_path / "lrs3", recipe("lrs3")
    face = np.random.default_rng(0).normal((128, 120), 20, (68, 2))
    face[48:] = (130, 160)
    face[list(_MEAN_FACE)] = list(_MEAN_FACE.values())
    long = [(f"W{i}", 2.0 * i, 2.0 * i + 1) for i in range(9)]
    clips = {f"trainval/{video}/0000{i}": None for video in "ab" for i in (1, 2)} | {"test/c/00001": None, "pretrain/d/00001": long}
    for clip, words in clips.items():
        write_clip(corpus / clip, " ".join(word for word, *_ in words) if words else "SAY {LG} SOMETHING", words, mp4=False)
        frames = 450 if words else 10
        write_media(corpus / f"{clip}.mp4", frames, frames / 25, size=256)
        path = tmp_path / "landmarks" / f"{clip}.pkl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pickle.dumps([face + (0.2 * t, 0) for t in range(frames)]))
    out = run(
        *("--stage", 1, "--stop_stage", 4, "--nj", 1, "--dump_args", f"--landmarks precomputed:{tmp_path}/landmarks"),
        LRS3=str(corpus),
    )
    assert out.returncode == 0, out.stdout + out.stderr
    assert run.sizes() == {"train_30h": 2, "train_433h": 4, "valid": 2, "test": 1}
    dumped = run.data.parent / "dump/raw"
    assert set(read_table(dumped / "test/text").values()) == {"say something"}
    train = read_dir(dumped / "train_433h")
    assert train["text"]["lrs3_d_pretrain_00001_00"] == "w0 w1 w2 w3 w4 w5 w6 w7" and train["text"]["lrs3_d_pretrain_00001_01"] == "w8"
    assert [int(train["utt2num_frames"][f"lrs3_d_pretrain_00001_0{k}"]) for k in (0, 1)] == [375, 25]
    assert set(read_dir(dumped / "test")["utt2num_frames"].values()) == {"10"}  # a whole file
    crops = run.data.parent / train["video.scp"]["lrs3_d_pretrain_00001_01"]
    with np.load(crops.with_suffix(".npz")) as geometry:
        places = [np.linalg.solve(matrix[:, :2], 48 - matrix[:, 2])[0] for matrix in geometry["transforms"]]
    assert np.abs(places - (130 + 0.2 * np.arange(400, 425))).max() < 0.7  # the corner is rounded to a pixel
    assert train["utt2num_samples"]["lrs3_d_pretrain_00001_01"] == "16000" and (dumped / "train_433h/dropped.jsonl").read_text() == ""


def test_lrs3_with_voxceleb2_by_whisper(recipe, tmp_path):
    vox2, lrs3 = recipe("vox2"), recipe("lrs3")
    whisper = make_taught_whisper(tmp_path / "whisper", multilingual=False)
    make_lrs3(tmp_path / "lrs3")
    options = ("--local_data_opts", f"--vox2 {vox2.data}", "--train_set", "train_1759h")
    out = lrs3(*STAGE_1, *options, LRS3=str(tmp_path / "lrs3"))
    assert out.returncode == 2 and "vox2/avsr_llm1/run.sh --stage 1 --stop_stage 1" in out.stdout
    make_vox2(tmp_path / "vox2")
    write_clip(tmp_path / "lrs3/test/x/00001", "ALSO IN VOXCELEB")  # a recording of both corpora
    asked = ("--local_data_opts", f"--whisper {whisper} --batch_size 3")
    out = vox2(*STAGE_1, *asked, VOX2=str(tmp_path / "vox2"))
    assert out.returncode == 0, out.stdout + out.stderr
    assert re.search(r"^  Whisper data/\w+ 1/1: ", out.stdout, re.MULTILINE)  # how far it is
    sizes = vox2.sizes()
    assert sizes.keys() == {"train", "valid", "test"} and sum(sizes.values()) == 8
    assert set(read_dir(vox2.data / "test")["text"].values()) <= {"low tone", "alto"}
    assert read_dir(vox2.data / "test")["utt2segment"] == read_dir(vox2.data / "unlabelled/test")["utt2segment"]
    out = lrs3(*STAGE_1, *options, LRS3=str(tmp_path / "lrs3"))
    assert out.returncode == 0, out.stdout + out.stderr
    assert lrs3.sizes() == {"train_30h": 27, "train_433h": 36, "train_1759h": 36 + 3, "valid": 3, "test": 7}
    assert "left out 5 utterances" in out.stderr  # of that recording
    out = vox2(*STAGE_1, *asked, VOX2=str(tmp_path / "vox2"))  # again: nothing is asked of Whisper
    assert out.returncode == 0 and "data/unlabelled is there already" in out.stdout
    out = vox2(*STAGE_1, VOX2=str(tmp_path / "vox2"))  # another Whisper, in the same folder
    assert out.returncode == 1 and f"data/train was made with {{'whisper': '{whisper}'" in (vox2.data / "log/whisper.1.log").read_text()


def test_lrs3_from_label_files(recipe, tmp_path):
    run, crops = recipe("lrs3"), make_crops(tmp_path / "crops")
    lines = {"train": ("trainval/-b/00001_00", "clip_1"), "test": ("test/aa/00001",)}
    for name, clips in lines.items():
        (tmp_path / f"{name}.csv").write_text("".join(f"lrs3,lrs3_video_seg16s/{clip}.mp4,50,1 2,some words\n" for clip in clips))
    sets = ("--train_set", "train_csv", "--valid_set", "valid_csv", "--test_sets", "test_csv")
    out = run(*STAGE_1, *sets, "--local_data_opts", f"--train_csv {tmp_path}/train.csv --test_csv {tmp_path}/test.csv", LRS3=str(crops))
    assert out.returncode == 0, out.stdout + out.stderr
    assert run.sizes() == {"train_csv": 1, "valid_csv": 1, "test_csv": 1}


def test_a_video_in_training_and_test_ends_stage_1(recipe, tmp_path):
    run = recipe("lrs3")
    write_clip(make_lrs3(tmp_path / "lrs3") / "test/c/00001", "A VIDEO OF PRETRAIN")
    out = run(*STAGE_1, LRS3=str(tmp_path / "lrs3"))
    assert out.returncode == 1 and "data/test and data/train_433h share" in out.stderr and "utt2video c" in out.stderr, out.stderr


@pytest.mark.parametrize("languages", ["es ar", "es"])
def test_muavic(recipe, tmp_path, languages):
    run = recipe("muavic")
    out = run(*STAGE_1, MUAVIC=str(make_muavic(tmp_path / "muavic")), languages=languages)
    assert out.returncode == 0, out.stdout + out.stderr
    sizes, both = run.sizes(), languages != "es"
    assert sizes["train_es"] == 2 and sizes["valid_es"] == sizes["test_es"] == 3
    assert (sizes["train"], sizes["valid"]) == ((5, 7) if both else (2, 3)) and ("test_ar" in sizes) == both
    assert {speaker.partition("_")[0] for speaker in read_table(run.data / "train/utt2spk").values()} == set(languages.split())


def test_every_corpus_of_the_program_has_a_recipe(capsys):
    with pytest.raises(SystemExit):
        prepare.main(["--help"])
    corpora = re.search(r"\n  CORPUS\n(.*?)\n\n", capsys.readouterr().out, re.DOTALL)[1]
    assert set(re.findall(r"^    (\w+) ", corpora, re.MULTILINE)) == {*RECIPES, "grid", "labels"}
