"""Phones of the corpus, and what each does to the visible mouth.

The labels are ARPABET, so that accents share them. The mouth has seven controls in 0..1: jaw opening, spreading
(0.5 is neutral), rounding, pressing of the lips, teeth shown, tongue (0.6 tip behind the teeth, 1 between them),
lower lip tucked under the upper teeth.
"""

# espeak-ng mnemonic (without stress) -> label
PHONE_OF: dict[str, str] = {
    "_": "sil", "_:": "sil",
    "p": "P", "b": "B", "m": "M", "f": "F", "v": "V", "T": "TH", "D": "DH", "t": "T", "t#": "T", "d": "D", "n": "N",
    "s": "S", "z": "Z", "tS": "CH", "dZ": "JH", "k": "K", "g": "G", "h": "HH", "l": "L", "r": "R", "r-": "R", "w": "W",
    "j": "Y", ";": "Y", "i:": "IY", "I": "IH", "E": "EH", "a": "AE", "A@": "AA", "0": "AA", "o@": "AO", "O@": "AO",
    "u:": "UW", "V": "AH", "@": "AX", "a#": "AX", "eI": "EY", "aI": "AY", "oU": "OW", "aU": "AW", "i@": "IA",
}  # fmt: skip

CONTROLS = ("jaw", "width", "round", "press", "teeth", "tongue", "tuck")

VISEMES: dict[str, tuple[float, ...]] = {
    #         jaw  width round press teeth tongue tuck
    "sil":   (0.00, 0.50, 0.00, 0.10, 0.00, 0.00, 0.00),
    "PBM":   (0.00, 0.45, 0.10, 1.00, 0.00, 0.00, 0.00),
    "FV":    (0.18, 0.50, 0.00, 0.00, 1.00, 0.00, 1.00),
    "TH":    (0.34, 0.50, 0.00, 0.00, 0.60, 1.00, 0.00),
    "TDN":   (0.32, 0.60, 0.00, 0.00, 0.30, 0.60, 0.00),
    "SZ":    (0.20, 0.80, 0.00, 0.00, 1.00, 0.00, 0.00),
    "SHCH":  (0.20, 0.30, 0.65, 0.00, 1.00, 0.00, 0.00),
    "KG":    (0.32, 0.55, 0.00, 0.00, 0.25, 0.15, 0.00),
    "L":     (0.48, 0.50, 0.00, 0.00, 0.25, 0.75, 0.00),
    "R":     (0.24, 0.25, 0.55, 0.00, 0.40, 0.20, 0.00),
    "W":     (0.08, 0.00, 1.00, 0.20, 0.00, 0.00, 0.00),
    "IY":    (0.24, 1.00, 0.00, 0.00, 0.55, 0.30, 0.00),
    "IH":    (0.32, 0.75, 0.00, 0.00, 0.55, 0.25, 0.00),
    "EH":    (0.52, 0.70, 0.00, 0.00, 0.45, 0.25, 0.00),
    "AE":    (0.74, 0.80, 0.00, 0.00, 0.45, 0.20, 0.00),
    "AA":    (1.00, 0.45, 0.05, 0.00, 0.20, 0.05, 0.00),
    "AO":    (0.72, 0.15, 0.65, 0.00, 0.05, 0.05, 0.00),
    "UW":    (0.28, 0.05, 0.90, 0.00, 0.00, 0.00, 0.00),
    "AX":    (0.38, 0.50, 0.05, 0.00, 0.30, 0.10, 0.00),
}  # fmt: skip

# label -> visemes it passes through (diphthongs have two)
VISEMES_OF: dict[str, tuple[str, ...]] = {
    "sil": ("sil",), "P": ("PBM",), "B": ("PBM",), "M": ("PBM",), "F": ("FV",), "V": ("FV",), "TH": ("TH",),
    "DH": ("TH",), "T": ("TDN",), "D": ("TDN",), "N": ("TDN",), "S": ("SZ",), "Z": ("SZ",), "CH": ("SHCH",),
    "JH": ("SHCH",), "K": ("KG",), "G": ("KG",), "HH": ("KG",), "L": ("L",), "R": ("R",), "W": ("W",), "Y": ("IY",),
    "IY": ("IY",), "IH": ("IH",), "EH": ("EH",), "AE": ("AE",), "AA": ("AA",), "AO": ("AO",), "UW": ("UW",),
    "AH": ("AA",), "AX": ("AX",), "EY": ("EH", "IY"), "AY": ("AA", "IY"), "OW": ("AO", "UW"), "AW": ("AA", "UW"),
    "IA": ("IY", "AX"),
}  # fmt: skip

LABELS: tuple[str, ...] = tuple(VISEMES_OF)
