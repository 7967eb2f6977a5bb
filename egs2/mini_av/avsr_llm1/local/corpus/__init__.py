"""A talking-face corpus made from packages alone: espeak-ng speech and a drawn head whose lips follow the phones."""
