"""A tiny Whisper that was taught two tones: low is English "Low tone.", high is Spanish "Alto"."""

import numpy as np
import torch

SECONDS = 1  # window of the tiny model
START = ["<|startoftranscript|>", "<|en|>", "<|es|>", "<|transcribe|>", "<|translate|>", "<|notimestamps|>"]


def tone(hertz, seconds=1.0):
    time = np.arange(int(16000 * seconds)) / 16000
    return (0.1 * np.sin(2 * np.pi * hertz * time) + 0.01 * np.random.default_rng(hertz).standard_normal(len(time))).astype(np.float32)


LOW, HIGH = tone(250), tone(2500)


def make_tokenizer():
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import WhisperTokenizer

    tokenizer = WhisperTokenizer(vocab={c: i for i, c in enumerate(sorted(ByteLevel.alphabet()))}, merges=[])
    tokenizer.add_special_tokens({"additional_special_tokens": START})
    return tokenizer


def make_taught_whisper(folder, multilingual):
    """Save a Whisper that transcribes LOW and HIGH as taught."""
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

    tokenizer, features = make_tokenizer(), WhisperFeatureExtractor(chunk_length=SECONDS)
    id_of = tokenizer.convert_tokens_to_ids
    sot, english, spanish, transcribe, translate, no_times = map(id_of, START)
    sizes = dict(d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2)
    ends = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), tokenizer.eos_token_id)
    config = WhisperConfig(vocab_size=len(tokenizer), max_source_positions=50 * SECONDS, decoder_start_token_id=sot, **sizes, **ends)
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration(config)
    heads = [[sot, language, transcribe, no_times] if multilingual else [sot, no_times] for language in (english, spanish)]
    taught = [head + tokenizer.encode(text, add_special_tokens=False) for head, text in zip(heads, ("Low tone.", "Alto"))]
    longest = max(map(len, taught)) + 1
    ids = torch.tensor([row + [tokenizer.eos_token_id] * (longest - len(row)) for row in taught])
    inputs = features([LOW, HIGH], sampling_rate=16000, return_tensors="pt").input_features
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(150):
        loss = torch.nn.functional.cross_entropy(model(inputs, decoder_input_ids=ids[:, :-1]).logits.transpose(1, 2), ids[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    conf = model.generation_config
    conf.is_multilingual, conf.no_timestamps_token_id, conf.suppress_tokens, conf.begin_suppress_tokens = multilingual, no_times, [], []
    conf._from_model_config = False
    if multilingual:
        conf.lang_to_id, conf.task_to_id = {"<|en|>": english, "<|es|>": spanish}, {"transcribe": transcribe, "translate": translate}
    for part in (model, tokenizer, features):
        part.save_pretrained(folder)
    return str(folder)
