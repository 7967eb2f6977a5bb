"""Package description; exact versions of a tested installation are in conf/constraints.txt."""

from pathlib import Path

from setuptools import find_packages, setup

root = Path(__file__).resolve().parent
version_file = root / "espnet2_avsr_llm" / "__init__.py"
version = version_file.read_text(encoding="utf-8").split('__version__ = "')[1].split('"')[0]

setup(
    name="espnet2-avsr-llm",
    version=version,
    description="LLM-based audio-visual speech recognition as an ESPnet2 plugin",
    long_description=(root / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["espnet2_avsr_llm", "espnet2_avsr_llm.*"]),
    package_data={"": ["*.json", "*.md"]},
    python_requires=">=3.10,<3.13",  # sentencepiece 0.2.0 and editdistance have no cp313 wheels
    install_requires=[
        "espnet==202511",
        "espnet-model-zoo==0.1.7",
        "torch>=2.6,<2.12",  # torchaudio 2.11 is the last one and pins no torch
        "torchaudio>=2.6,<2.12",
        "transformers>=5.0,<6",
        "peft>=0.18,<0.22",
        "librosa>=0.10.2,<1.0",
        "setuptools>=65,<74",  # espnet needs distutils through setuptools below 74
        "soundfile>=0.12",
        'av==18.1.0; python_version == "3.11"',
        'av>=16,<20; python_version != "3.11"',
        "opencv-python-headless>=4.8,<5",
        "ai-edge-litert==2.3.0",
        "matplotlib>=3.7",
        "tensorboard>=2.14",
        "jiwer>=3.0,<5",
        "safetensors>=0.4",
        "tqdm>=4.60",
    ],
    extras_require={
        "mini": ["espeakng-loader==0.2.4"],  # carries espeak-ng (GPL-3.0-or-later): never a core requirement
        "wandb": ["wandb"],
        "quant": ["bitsandbytes>=0.46"],  # the first with CPU kernels
        "analysis": ["shap>=0.51", "markdown>=3.4"],
        "test": ["pytest>=8", "hypothesis>=6", "pytest-xdist>=3", "bitsandbytes>=0.46"],
    },
    entry_points={"console_scripts": ["avsr-llm=espnet2_avsr_llm.bin.cli:main"]},
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
    ],
)
